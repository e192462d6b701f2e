"""The deterministic simulation: the real planner, services, store and conductor, and simulated nodes with the agent's
own phase machine, on one virtual clock, with faults that a seed decides. The rules are judged from outside, by what the
nodes' machines and containers do (see `judge`).

`python -m tests.simulation SEED` runs one seed again, exactly, and prints its trace.
"""
