"""Pure rules: no I/O, no clock and no randomness of its own; now and ids are arguments."""
