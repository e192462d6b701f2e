"""What the conductor does for rollouts, in the order in which one round does it.

Each step is idempotent and may be killed anywhere: it finds in the rows what is due, and changes it conditionally.

1. observe: rows of nodes follow their operations, and the rollout is judged in the same transaction;
2. judge: versions that failed on enough nodes become bad, also where no rollout stopped; images that were withdrawn or
   became bad halt their rollouts; once all canaries soaked the others' wait begins, with the canaries watched;
3. take back: orders of rollouts that stopped, of frozen nodes, and orders of operators to bad versions;
4. take in: late joiners come, nodes that left the group go;
5. drafts of groups that follow their channel at once are started;
6. give orders: early and widely, bounded by downloads at once; write down why the others wait for theirs; others
   take the place of canaries that are held on the node itself;
7. ways back: ordered where a rollout rolls back, called back where it was aborted, written down when they ended;
8. finish: rollouts none of whose nodes is under way;
9. copies of bad versions are made unbootable;
10. marks of what needed a person go with their conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.services import (
    attention,
    bad_versions,
    following,
    rollout_back,
    rollout_finish,
    rollout_freezes,
    rollout_held_canaries,
    rollout_observe,
    rollout_orders,
    rollout_own_holds,
    rollout_take_in,
    rollout_waiting,
    version_failures,
)
from app.store.database import Database

_ROLLOUTS, _OPERATIONS, _NODES = frozenset({"rollouts"}), frozenset({"operations"}), frozenset({"nodes"})
_IMAGES, _RULES = frozenset({"images"}), frozenset({"groups", "freezes"})


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """`every_s`: how often it looks at most. `follows`: the topics of all rows that it reads; while none of them
    changes it looks only every `patience_s`: short where time itself makes something due. `follows` empty: it looks
    each time."""

    name: str
    step: Callable[[Database, float], object]
    every_s: float
    follows: frozenset[str]
    patience_s: float


STEPS: tuple[RolloutStep, ...] = (
    RolloutStep("rollout-observe", rollout_observe.observe, 0.5, _ROLLOUTS | _OPERATIONS, 5.0),
    RolloutStep("bad-versions", version_failures.judge_versions, 1.0, _IMAGES, 5.0),
    RolloutStep("rollout-judge", rollout_observe.judge, 1.0, _ROLLOUTS | _IMAGES, 20.0),
    RolloutStep("rollout-canaries", rollout_observe.watch_canaries, 1.0, _ROLLOUTS | _NODES, 5.0),
    RolloutStep("rollout-take-back", rollout_orders.take_back, 1.0, _ROLLOUTS | _OPERATIONS, 5.0),
    RolloutStep(
        "rollout-frozen", rollout_freezes.take_back_frozen, 1.0, _ROLLOUTS | _OPERATIONS | _NODES | _RULES, 2.0
    ),
    RolloutStep("bad-orders", bad_versions.stop_orders, 2.0, _IMAGES | _OPERATIONS, 20.0),
    # Neither `nodes` nor `rollouts`, which change all the time: who comes late waits for the end of this patience.
    RolloutStep("rollout-take-in", rollout_take_in.take_in, 5.0, _IMAGES | _RULES, 15.0),
    RolloutStep("rollout-follow", following.start_drafts, 1.0, _ROLLOUTS | _RULES, 20.0),
    RolloutStep(
        "rollout-order", rollout_orders.give_orders, 1.0, _ROLLOUTS | _OPERATIONS | _NODES | _IMAGES | _RULES, 2.0
    ),
    RolloutStep(
        "rollout-waiting", rollout_waiting.note_holds, 10.0, _ROLLOUTS | _OPERATIONS | _NODES | _IMAGES | _RULES, 60.0
    ),
    RolloutStep("rollout-own-holds", rollout_own_holds.note_own_holds, 10.0, _ROLLOUTS | _OPERATIONS | _NODES, 30.0),
    RolloutStep("rollout-held-canaries", rollout_held_canaries.replace_held, 10.0, _ROLLOUTS | _NODES, 30.0),
    RolloutStep("rollout-back-stopped", rollout_back.call_back, 1.0, _ROLLOUTS | _OPERATIONS, 5.0),
    RolloutStep("rollout-back-ended", rollout_back.observe_back, 1.0, _ROLLOUTS | _OPERATIONS, 5.0),
    RolloutStep("rollout-back", rollout_back.send_back, 1.0, _ROLLOUTS | _OPERATIONS | _NODES, 5.0),
    RolloutStep("rollout-finish", rollout_finish.finish, 1.0, _ROLLOUTS, 20.0),
    RolloutStep("bad-copies", bad_versions.disarm_copies, 10.0, _IMAGES | _OPERATIONS | _NODES, 60.0),
    RolloutStep("attention", attention.forget_over, 60.0, frozenset(), 0.0),
)


def run_all(db: Database, now: float) -> None:
    """Every step once, whatever its time."""
    for one in STEPS:
        one.step(db, now)
