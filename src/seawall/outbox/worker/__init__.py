"""What does the work that waits: how much it may take up, what becomes of each record, and who hears of it."""
