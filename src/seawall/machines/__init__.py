"""Pure state machines: no clock, no lock, no I/O; time and chance are arguments."""
