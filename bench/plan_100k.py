"""Seconds and memory of one plan for 100,000 nodes that run 1,000,000 replicas of 5,000 services, all of them ready to
move: the worse of floors with headroom 1 and floors with headroom 20.

Each measurement is a process of its own; memory is the growth of its peak from before the fleet is made, so that the
snapshot counts. How time grows from 1,000 nodes on is printed beside it, as a share of what n·log n would allow.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

NODES = 100_000
SIZES = (1_000, 10_000, NODES)
HEADROOMS = (1, 20)
SERVICES_PER_NODE = 10
NODES_PER_SERVICE = 20
GOAL_S, GOAL_MIB = 5.0, 512.0


def run() -> list[dict[str, object]]:
    seconds: dict[int, float] = {}
    mib = 0.0
    for nodes in SIZES:
        for headroom in HEADROOMS:
            found = _in_process(nodes, headroom)
            took = f"{found['s']:6.2f} s ({found['cpu_s']:.2f} s of them on a core)"
            print(f"  {nodes:>7,} nodes, headroom {headroom:>2}: {took}, {found['waves']:,} waves")
            seconds[nodes] = max(seconds.get(nodes, 0.0), found["s"])
            mib = max(mib, found["mib"])
    fewer, more = SIZES[0], SIZES[-1]
    allowed = more * math.log(more) / (fewer * math.log(fewer))
    share = seconds[more] / seconds[fewer] / allowed
    print(f"  from {fewer:,} to {more:,} nodes: {share:.2f} of the growth that n·log n allows")
    worst_s = seconds[NODES]
    return [
        {
            "name": "plan-100k-s",
            "value": round(worst_s, 2),
            "unit": "s",
            "goal": f"<= {GOAL_S:g}",
            "met": worst_s <= GOAL_S,
        },
        {
            "name": "plan-100k-mib",
            "value": round(mib),
            "unit": "MiB",
            "goal": f"<= {GOAL_MIB:g}",
            "met": mib <= GOAL_MIB,
        },
    ]


def _in_process(nodes: int, headroom: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.plan_100k", str(nodes), str(headroom)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measure(nodes: int, headroom: int) -> dict[str, float]:
    from app.core.planner import plan
    from bench.plan_fleets import random_fleet

    before = _peak_mib()
    snapshot = random_fleet(
        nodes, services=nodes // NODES_PER_SERVICE, on_each=SERVICES_PER_NODE, headroom=headroom, seed=1
    )
    began, core_began = time.perf_counter(), time.process_time()
    made = plan(snapshot)
    seconds, core_s = time.perf_counter() - began, time.process_time() - core_began
    assert sum(len(wave.nodes) for wave in made.waves) == nodes, "every node moves"
    return {"s": seconds, "cpu_s": core_s, "mib": _peak_mib() - before, "waves": len(made.waves)}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), int(sys.argv[2]))))
