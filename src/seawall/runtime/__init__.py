"""The imperative shell: clocks, waiting, threads and tasks."""
