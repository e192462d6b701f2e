"""Simulated nodes: the agent's own phase machine and wire, with an invented world below."""
