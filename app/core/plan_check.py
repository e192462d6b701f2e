"""The independent checker: naive on purpose, and of the planner's code it shares nothing but the types.

`check` judges a whole plan against its snapshot; `check_admitted` is what is asked again before leases are granted.
"""

from __future__ import annotations

from app.core.plan import Plan
from app.core.plan_facts import Facts
from app.core.plan_ledger import Budgets, Costs, Supply, Violation, check_admitted
from app.core.snapshot import Snapshot

__all__ = ["Budgets", "Costs", "Supply", "Violation", "check", "check_admitted"]


def check(plan: Plan, snapshot: Snapshot) -> list[Violation]:
    """What is wrong with a plan; empty: it keeps every rule. Costs time of the order of the whole snapshot."""
    view = Facts(snapshot)
    found = _accounted(plan, snapshot)
    now = view.budgets(back=False)
    admitted = [snapshot.candidates[place] for place in plan.admitted]
    found += [
        Violation(view.name(one), f"is admitted although it {why}")
        for one in admitted
        if (why := view.refusal(one)) is not None
    ]
    found += check_admitted([view.costs(one, back=False) for one in admitted], now)
    found += view.turns([admitted])
    waves = [[view.mover(node, plan) for node in wave.nodes] for wave in plan.waves]
    in_a_wave = view.budgets(back=True)
    for wave in waves:
        found += check_admitted([view.costs(one, back=True) for one in wave], in_a_wave)
    return found + view.turns(waves) + view.canaries(waves)


def _accounted(plan: Plan, snapshot: Snapshot) -> list[Violation]:
    """Each candidate is admitted or held, and moves once."""
    found = []
    for place, candidate in enumerate(snapshot.candidates):
        name = snapshot.nodes[candidate.node].name
        if (place in plan.admitted) == (place in plan.holds):
            found.append(Violation(name, "is neither admitted nor held, or both"))
    for nodes in (
        [snapshot.candidates[place].node for place in plan.admitted],
        [n for w in plan.waves for n in w.nodes],
    ):
        twice = {node for node in nodes if nodes.count(node) > 1} if len(nodes) != len(set(nodes)) else set()
        found += [Violation(snapshot.nodes[node].name, "moves twice") for node in twice]
    return found
