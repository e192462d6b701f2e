"""Tables, and queries by noun: the only SQL in the project."""
