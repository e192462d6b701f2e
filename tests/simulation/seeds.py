"""Half of the seeds in a process of its own: the odd ones, or the even ones.

Two test files of one process each, so that two workers share them with whatever else they have: one test of two
processes would keep both cores from the other worker.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

SEEDS = 1_000
"""From 1 on, in both halves together: the same ones each time, however long they take."""
_SAID = os.environ.get("TWINROOT_SEEDS_S", "")
SECONDS = float(_SAID or "360")
"""How long each half goes on; whoever says so gets what fits into it, and not SEEDS at least."""
FIRST = int(os.environ.get("TWINROOT_SEEDS_FROM", "1"))
PATIENCE_S = 1_200.0
"""A machine on which SEEDS take longer than this is too slow to judge."""


def run_half(place: int) -> str:
    """Run every second seed from FIRST + `place` on; how many ran, in words. AssertionError names a seed that breaks a
    rule, with the command that repeats it."""
    least = 1 if _SAID else SEEDS // 2
    spans = [f"--for={SECONDS}", f"--least={least}", f"--patience={max(PATIENCE_S, SECONDS)}"]
    command = [sys.executable, "-m", "tests.simulation", f"--from={FIRST + place}", "--step=2", *spans]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    count = int(re.findall(r"^RAN (\d+)", ended.stdout, re.MULTILINE)[-1])
    assert count >= least, f"only {count} seeds ran within {PATIENCE_S:.0f} s"
    return f"{count} seeds from {FIRST + place} on, every second one"
