"""The node's phase machine: pure, `step(state, input, moment, limits) -> (state, commands)`.

No I/O, no clock, no randomness: time, nonces and chance come in with `Moment`. The runner writes the new state
to disk before it executes any command, so that a crash at any point resumes where it was. The words of the
machine stand in `model`, what comes in and goes out in `inputs`, all its moves in `table`.
"""
