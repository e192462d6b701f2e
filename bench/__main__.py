"""`python -m bench [NAME]`: run all benchmarks, or those that make the figure NAME.

A module here named after its first figure offers `run() -> list[dict]` with name, value, unit, goal (text such as
"<= 25") and met. Each line also goes to bench/results.jsonl with the commit and the machine.
Exit status: 0 when all ran and met their goals, 1 when a goal was missed, 2 when one could not run.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

FIGURES = {
    "ingest-ratio": "ingest_ratio",
    "gateway-node-kib": "gateway_node_kib",
    "change-to-page-p99-ms": "change_to_page",
    "nodes-page-growth": "nodes_page_growth",
    "live-pages-cpu": "live_pages_cpu",
    "tick-unchanged-ms": "tick",
    "tick-1pct-ms": "tick",
    "plan-100k-s": "plan_100k",
    "plan-100k-growth": "plan_100k",
    "plan-100k-mib": "plan_100k",
    "plan-waves-ratio": "plan_waves",
    "rollout-overhead-pct": "rollout_overhead",
    "rollout-conductor-cpu": "rollout_overhead",
}
"""Figure name to module."""

_RESULTS = Path(__file__).with_name("results.jsonl")


def main(arguments: list[str]) -> int:
    """Run what the arguments name; see the module's text for the exit status."""
    if arguments and arguments[0] not in FIGURES:
        print(f"bench: there is no figure {arguments[0]}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    wanted = [FIGURES[arguments[0]]] if arguments else list(dict.fromkeys(FIGURES.values()))
    return measure({module: partial(_run, module) for module in wanted}, _RESULTS)


def measure(benchmarks: Mapping[str, Callable[[], list[dict[str, object]]]], results: Path) -> int:
    """Run them one after the other and report their figures; the exit status."""
    worst = 0
    for name, run in benchmarks.items():
        try:
            figures = run()
        except Exception:  # a benchmark that cannot run says so, and the others still run
            traceback.print_exc()
            print(f"bench: {name} could not run", file=sys.stderr)
            worst = 2
            continue
        for figure in figures:
            _report(figure, results)
            worst = max(worst, 0 if figure["met"] else 1)
    return worst


def _run(module: str) -> list[dict[str, object]]:
    figures: list[dict[str, object]] = importlib.import_module(f"bench.{module}").run()
    return figures


def _report(figure: dict[str, object], results: Path) -> None:
    row = {**figure, "commit": _commit(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    verdict = "met" if figure["met"] else "MISSED"
    print(
        f"{figure['name']:24} {figure['value']:>10} {figure['unit']:6} goal {figure['goal']:>8}  {verdict}", flush=True
    )
    with results.open("a") as out:
        out.write(json.dumps(row) + "\n")


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
