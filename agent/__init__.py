"""The node agent: a pure phase machine, and a link and runner around it."""
