"""How the arguments of an operation become bytes, and come back as what they were."""
