"""How the nodes of a group came to what they run: by a move forth, by a way back, or by none that we know of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, case, or_, select

from app.core.groups import Selector
from app.core.rollouts import TERMINAL, RolloutKind, RolloutNodeState, RolloutState
from app.store.node_query import in_group
from app.store.schema import nodes, operations, rollout_nodes, rollouts
from app.store.ways_back import leads_back
from wire.messages import OperationKind, Phase, Result

_o, _r = operations.c, rollout_nodes.c


class LastMove(StrEnum):
    FORTH = "forth"
    BACK = "back"
    """Somebody sent it back."""
    FELL = "fell"
    """It went back by itself."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Standing:
    """A node, what it runs, and the other end of its last move: what it ran before, or what it came back from."""

    node_id: str
    name: str
    version: str
    digest: str
    move: LastMove = LastMove.NONE
    other_version: str = ""
    local: bool = False
    """What it ran before is in the passive slot."""
    other_digest: str = ""
    confirmed: bool = False
    """That slot was confirmed good."""


@dataclass(frozen=True, slots=True)
class InRollout:
    """A node in a rollout that has not ended."""

    rollout_id: str
    number: int
    kind: RolloutKind
    rollout_state: RolloutState
    state: RolloutNodeState
    moved: bool
    """It may run what that rollout leads to."""
    back: bool
    """It was or is being sent back by that rollout."""


def of_group(conn: Connection, selector: Selector) -> list[Standing]:
    """Its admitted nodes, by name."""
    columns = nodes.c.id, nodes.c.name, nodes.c.version, nodes.c.booted_digest, nodes.c.slots
    rows = conn.execute(select(*columns).where(in_group(selector)).order_by(nodes.c.name, nodes.c.id)).all()
    moves: dict[str, Any] = {}
    for row in conn.execute(_moves(selector)):
        moves.setdefault(row.node_id, row)
    return [_standing(row, moves.get(row.id)) for row in rows]


def _standing(row: Any, move: Any) -> Standing:
    here = row.id, row.name, row.version or "", row.booted_digest or ""
    if move is None:
        return Standing(*here)
    if move.fell:
        return Standing(*here, LastMove.FELL, move.target_version)
    passive: Sequence[Mapping[str, Any]] = [slot for slot in row.slots or () if not slot.get("booted")]
    goods = [slot.get("good") for slot in passive if slot.get("digest") == move.old_digest]
    local, led = any(good is not False for good in goods), LastMove.BACK if move.back else LastMove.FORTH
    return Standing(*here, led, move.old_version, local, move.old_digest, True in goods)


_ARMED = [phase.value for phase in (Phase.REBOOTING, Phase.CONFIRMING, Phase.SOAKING, Phase.ROLLING_BACK)]
_NOT_HEARD = [Result.TIMED_OUT.value, Result.UNKNOWN.value]


def _moves(selector: Selector) -> Any:
    """Ended operations that brought a node to what it runs now, or from which it came back to that; newest first."""
    came = and_(
        _o.target_digest == nodes.c.booted_digest,
        _o.old_digest != _o.target_digest,
        _o.result.in_([Result.SUCCEEDED.value, Result.UNHEALTHY.value, *_NOT_HEARD]),
    )
    fell = and_(
        _o.old_digest == nodes.c.booted_digest,
        _o.old_digest != _o.target_digest,
        or_(
            _o.result.in_([Result.FELL_BACK.value, Result.UNREACHABLE.value, Result.UNHEALTHY.value]),
            and_(_o.result.in_(_NOT_HEARD), _o.phase.in_(_ARMED)),
        ),
    )
    columns = _o.node_id, _o.target_version, _o.old_version, _o.old_digest
    return (
        select(
            *columns,
            case((fell, True), else_=False).label("fell"),
            case((leads_back(), True), else_=False).label("back"),
        )
        .join(nodes, nodes.c.id == _o.node_id)
        .where(
            in_group(selector),
            _o.kind.in_((OperationKind.ACTIVATE.value, OperationKind.ROLLBACK.value)),
            or_(came, fell),
        )
        .order_by(_o.id.desc())
    )


_MOVED = (RolloutNodeState.MOVING, RolloutNodeState.DONE, RolloutNodeState.FAILED)


def in_open_rollouts(conn: Connection, selector: Selector) -> dict[str, list[InRollout]]:
    """Node id → the rollouts under way that have it, the newest first; drafts are not."""
    over = [state.value for state in (*TERMINAL, RolloutState.DRAFT)]
    rows = conn.execute(
        select(_r.node_id, _r.state, _r.moving_at, _r.back_ended_at, rollouts.c.id, rollouts.c.number, rollouts.c.kind)
        .add_columns(rollouts.c.state.label("rollout_state"))
        .join_from(rollout_nodes, rollouts, rollouts.c.id == _r.rollout_id)
        .join(nodes, nodes.c.id == _r.node_id)
        .where(rollouts.c.state.not_in(over), in_group(selector))
        .order_by(rollouts.c.number.desc())
    )
    found: dict[str, list[InRollout]] = {}
    for row in rows:
        kind, rollout_state = RolloutKind(row.kind), RolloutState(row.rollout_state)
        state = RolloutNodeState(row.state)
        moved = state in _MOVED or (state is RolloutNodeState.LEFT and row.moving_at is not None)
        back = rollout_state is RolloutState.ROLLING_BACK and moved and row.back_ended_at is None
        one = InRollout(row.id, row.number, kind, rollout_state, state, moved, back)
        found.setdefault(row.node_id, []).append(one)
    return found
