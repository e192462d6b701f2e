"""`python -m tests.simulation SEED`: one seed again, with its trace. `--from N --for SECONDS`: seeds from N on."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import time
import traceback
from types import FrameType

HANGS_S = 300
"""A seed takes a second or two; one that turns in a circle has to be named."""
HASH_SEED = "0"
"""The order of sets of strings is part of a run."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Deterministic simulation.")
    parser.add_argument("seed", type=int, nargs="?")
    parser.add_argument("--from", type=int, dest="first", default=1)
    parser.add_argument("--step", type=int, default=1, help="to the next seed, where others run those between")
    parser.add_argument("--for", type=float, dest="seconds", default=60.0)
    parser.add_argument("--least", type=int, default=0, help="no fewer seeds than this, if patience lasts")
    parser.add_argument("--patience", type=float, default=float("inf"), help="seconds for the least")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="no more seeds than this, whatever the time")
    parser.add_argument("--keep-going", action="store_true", help="after a seed that breaks a rule")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environ = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environ)
    if options.seed is not None:
        return _one(options.seed)
    return _many(options)


def _one(seed: int) -> int:
    from tests.simulation.run import run_seed
    from tests.simulation.stage import clean_up

    try:
        outcome = run_seed(seed)
    finally:
        clean_up()
    print("\n".join(outcome.trace))
    print(f"seed {seed}: {outcome.broken or 'all rules hold'}")
    return 1 if outcome.broken else 0


def _many(options: argparse.Namespace) -> int:
    """Prints a line for each seed that breaks a rule, and at last how many ran."""
    from tests.simulation.judge import RuleBroken
    from tests.simulation.run import run_seed
    from tests.simulation.stage import clean_up

    def hangs(number: int, frame: FrameType | None) -> None:
        where = "".join(traceback.format_stack(frame)[-6:])
        raise RuleBroken(f"it hangs:\n{where}")

    signal.signal(signal.SIGALRM, hangs)
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)  # a run leaves little behind, and looking for it often takes a tenth of the time
    began, count, broken, seed = time.monotonic(), 0, 0, options.first
    try:
        while _goes_on(options, time.monotonic() - began, count):
            signal.alarm(HANGS_S)
            outcome = run_seed(seed)
            signal.alarm(0)
            count += 1
            if outcome.broken:
                broken += 1
                print(f"BROKEN {outcome.broken}\n  again: python -m tests.simulation {seed}", flush=True)
                if not options.keep_going:
                    break
            seed += options.step
    finally:
        clean_up()
    print(f"RAN {count}", flush=True)
    return 1 if broken else 0


def _goes_on(options: argparse.Namespace, took_s: float, count: int) -> bool:
    enough = took_s >= options.seconds and (count >= options.least or took_s >= options.patience)
    return count < options.most and not enough


if __name__ == "__main__":
    sys.exit(main())
