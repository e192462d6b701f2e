"""Waves of a plan over the waves of the schedule that the fleet was made of: the worst of a fixed set of fleets.

Tight, loose, skewed and zoned fleets (bench.plan_fleets.RECIPES) of 500 to 5,000 nodes in 20 to 50 waves. In each the
group's budget is as small as the schedule allows, so that no plan can have fewer waves than the schedule. What dense
fleets need (BEYOND) is printed beside it and counts for nothing: docs/planner.md says why.
"""

from __future__ import annotations

from app.core.plan_check import check
from app.core.planner import plan
from bench.plan_fleets import BEYOND, RECIPES, planted

SIZES = ((500, 20), (1_000, 25), (2_000, 20), (5_000, 50))
"""(nodes, waves)."""
SEEDS = (11, 12, 13)
CHECKED = 1_000
"""Plans of fleets up to this size go through the checker too; it is naive and slow."""
GOAL = 1.15


def run() -> list[dict[str, object]]:
    worst = 0.0
    for name, recipe in (RECIPES | BEYOND).items():
        ratios = []
        for nodes, waves in SIZES:
            for seed in SEEDS:
                fleet = planted(recipe, nodes, waves, seed)
                made = plan(fleet.snapshot)
                if nodes <= CHECKED:
                    assert not check(made, fleet.snapshot), "the plan keeps the rules"
                ratios.append(len(made.waves) / fleet.waves)
        print(f"  {name:10} {max(ratios):.3f} at worst, {sum(ratios) / len(ratios):.3f} in the mean")
        if name in RECIPES:
            worst = max(worst, *ratios)
    value = {"name": "plan-waves-ratio", "value": round(worst, 3), "unit": "ratio", "goal": f"<= {GOAL:g}"}
    return [{**value, "met": worst <= GOAL}]
