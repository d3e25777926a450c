"""The store in this process: what every other store is held to."""
