"""Starting a rollout: policy, expected replicas, canaries and forecast are frozen, and its nodes are written down."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import Invalid, NotPossible
from app.core.holds import HoldCode
from app.core.plan import Impossible
from app.core.rollouts import Move, RolloutKind, RolloutNodeState, move
from app.core.snapshot import ServiceKey
from app.services.rollout_acting import CHANGED, RolloutEventKind, because, enter, locked_rollout
from app.services.rollout_groups import entry_targets
from app.services.rollout_leaving import promote
from app.services.rollout_preview import Preview, preview
from app.services.rollout_spec import as_now
from app.services.rollout_take_in import entry_row
from app.services.rollouts import no_bad_target
from app.services.service_views import expected_now
from app.store import groups, rollout_facts, rollout_nodes, rollouts
from app.store.database import Change, Database
from app.store.rollouts import Rollout

_NAMED = 3


def start(db: Database, actor: Actor, rollout_id: str, reason: str, now: float, *, start_anyway: bool = False) -> None:
    """Begin to move nodes. NotPossible when nothing could ever move, naming what forbids it and what would help; and
    when a part could not, unless `start_anyway`."""
    seen = preview(db, rollout_id, now)
    move(seen.rollout.state, Move.START)
    _refuse(seen, start_anyway=start_anyway)
    with db.write() as change:
        _apply(change, actor, rollout_id, seen, reason, now)


def _refuse(seen: Preview, *, start_anyway: bool) -> None:
    if seen.invalid:
        raise _unfit(seen.rollout, seen.invalid)
    if not seen.entering:
        why = Counter(one.out.text for one in seen.left).most_common(1)
        text = f" Of {len(seen.left):,} nodes, for example: {why[0][0]}." if why else ""
        raise NotPossible("nothing-to-do", f"There is no node that this rollout could move.{text}")
    stuck, barred = seen.impossible_nodes(), _barred(seen)
    if not (stuck or barred) or seen.rollout.kind is RolloutKind.ROLLBACK:
        return
    if {facts.id for facts in seen.entering} <= stuck | set(barred):
        texts = [_reasons(seen.impossible()), *Counter(f"{text}." for text in barred.values())]
        raise NotPossible("impossible", f"No node could ever move: {' '.join(filter(None, texts[: _NAMED + 1]))}")
    if stuck and not start_anyway:
        text = f"{len(stuck):,} of {len(seen.entering):,} nodes could never move: {_reasons(seen.impossible())}"
        raise NotPossible("partly-impossible", f"{text} Start anyway to move the others.")


_BARRED = frozenset({HoldCode.VERSION_EDGE, HoldCode.DOWNGRADE, HoldCode.FAILED_HERE})
"""Only a person changes these, and not by waiting."""


def _barred(seen: Preview) -> dict[str, str]:
    """Node id → why this version is nothing for it as it is."""
    snapshot = seen.snapshot
    return {
        snapshot.nodes[snapshot.candidates[place].node].id: hold.text
        for place in seen.candidates
        if (hold := seen.plan.holds.get(place)) is not None and hold.code in _BARRED
    }


def _reasons(found: Sequence[Impossible]) -> str:
    texts = []
    for one in found[:_NAMED]:
        helps = f" (would help: {'; '.join(one.helps)})" if one.helps else ""
        texts.append(f"{one.text.rstrip('.')}{helps}.")
    more = len(found) - _NAMED
    return " ".join(texts) + (f" And {more} more." if more > 0 else "")


def _apply(change: Change, actor: Actor, rollout_id: str, seen: Preview, reason: str, now: float) -> None:
    conn = change.conn
    rollout = locked_rollout(change, rollout_id)
    move(rollout.state, Move.START)  # somebody may have been faster
    no_bad_target(conn, rollout)
    rollout = _frozen(change, rollout, seen)
    rollout_nodes.remove_all(conn, rollout.id)
    rows = _rows(change, rollout, seen, now)
    rollout_nodes.add(conn, rows)
    if gone := len(seen.canaries) - sum(row["canary"] for row in rows):
        promote(change, rollout, gone, now)
    text = f"Started by {actor.name}{because(reason)}"
    values = {
        "started_at": now,
        "moved_at": now,
        "policy": rollouts.policy_json(rollout.policy),
        "selector": rollout.selector,
        "group_name": rollout.group_name,
        "expected": rollouts.expected_json(_expected(conn, seen, now)),
        "forecast": forecast_json(seen),
    }
    enter(change, actor, rollout, Move.START, text, reason, now, kind=RolloutEventKind.STARTED, **values)
    change.touch("services", "groups")


def _frozen(change: Change, rollout: Rollout, seen: Preview) -> Rollout:
    """With policy and selector as they are now; NotPossible when they are not those of the plan."""
    try:
        found = as_now(change.conn, rollout)
    except Invalid as error:
        raise _unfit(rollout, error.text) from None
    if (found.policy, found.selector) != (seen.rollout.policy, seen.rollout.selector):
        text = f"Group {rollout.group_name or 'of its nodes'} was changed at this moment; look at the plan again."
        raise NotPossible(CHANGED, text)
    return found


def _unfit(rollout: Rollout, why: str) -> NotPossible:
    text = f"The policy of group {rollout.group_name} has changed, and what was set for this rollout does not fit it"
    return NotPossible("policy-changed", f"{text}: {why} Nothing was started; draft it anew.")


def _rows(change: Change, rollout: Rollout, seen: Preview, now: float) -> list[dict[str, Any]]:
    targets = entry_targets(change.conn, rollout)
    wave_of = wave_numbers(seen)
    last = max(wave_of.values(), default=0) or 1  # of those without a wave, as of who joins later: they make none more
    found = [one.id for one in seen.entering] + [one.node_id for one in seen.left]
    rows = [entry_row(rollout, targets, one, now) for one in seen_again(change, rollout, found, now)]
    for row in rows:
        waits = row["state"] == RolloutNodeState.WAITING.value
        row["canary"] = waits and row["node_id"] in seen.canaries
        if row["canary"]:
            row["stage_at"] = now  # all others wait for them
        row["wave"] = wave_of.get(str(row["node_id"]), last)
    return rows


def seen_again(change: Change, rollout: Rollout, node_ids: Sequence[str], now: float) -> list[rollout_facts.Facts]:
    """Facts of the nodes as they are now: one may have been pinned or retired since the plan was made."""
    digests = [target.digest for target in rollout_facts.targets(change.conn, rollout.targets)]
    return rollout_facts.Reader(change.conn, digests, rollout.policy.absent_after_s, now).of(node_ids)


def wave_numbers(seen: Preview) -> dict[str, int]:
    """Node id → its wave: 0 for canaries, then from 1."""
    numbers = dict.fromkeys(seen.canaries, 0)
    number = 0
    for nodes in seen.waves():
        others = [node_id for node_id in nodes if node_id not in seen.canaries]
        if others:
            number += 1
            numbers |= dict.fromkeys(others, number)
    return numbers


def _expected(conn: Connection, seen: Preview, now: float) -> dict[ServiceKey, int]:
    """Of the services on the nodes that it moves, whatever others froze before."""
    snapshot = seen.snapshot
    places = {
        service
        for number in seen.candidates
        for service, _ in snapshot.nodes[snapshot.candidates[number].node].placements
    }
    known = {snapshot.services[place].key: snapshot.services[place].expected for place in places}
    return expected_now(conn, known, set(groups.names(conn)), now)


def forecast_json(seen: Preview) -> dict[str, Any]:
    """What was planned at the start, as pages and replays show it later."""
    snapshot, plan, lasts = seen.snapshot, seen.plan, seen.estimate
    own, waves = set(seen.candidates), wave_numbers(seen)
    holds = Counter(hold.code.value for number, hold in plan.holds.items() if number in own)
    return {
        "at": plan.at,
        "nodes": len(seen.entering),
        "left": len(seen.left),
        "canaries": len(seen.canaries),
        "waves": [len(nodes) for nodes in seen.waves()],
        "holds": dict(sorted(holds.items())),
        "worst": [
            {
                "scope": snapshot.services[worst.service].key[0],
                "name": snapshot.services[worst.service].key[1],
                "healthy_now": worst.healthy_now,
                "left": worst.left,
                "wave": _own_wave(seen, worst.wave, waves),
                "floor": worst.floor,
            }
            for worst in plan.worst
        ],
        "impossible": [
            {
                "subject": found.subject,
                "text": found.text,
                "nodes": len(found.nodes),
                "helps": list(found.helps),
            }
            for found in plan.impossible
        ],
        "low_s": _finite(lasts.low_s),
        "high_s": _finite(lasts.high_s),
        "never": lasts.never,
        "absent": len(plan.absent),
        "loses_way_back": len(plan.loses_way_back),
    }


def _own_wave(seen: Preview, number: int, waves: Mapping[str, int]) -> int | None:
    """The wave of the plan as the rollout counts its own (rollout_nodes.wave): the plan goes over all rollouts. None
    where another one causes it."""
    causing = next((wave.nodes for wave in seen.plan.waves if wave.number == number), ())
    ids = (seen.snapshot.nodes[node].id for node in causing)
    return max((waves[node_id] for node_id in ids if node_id in waves), default=None)


def _finite(seconds: float) -> float | None:
    """JSON has no infinity: None."""
    return seconds if math.isfinite(seconds) else None
