"""Where the states of limits live: in this process, or on a server for a whole cluster."""
