"""The layers of a policy, one file each: a frozen spec that describes it, and the live layer that runs it."""
