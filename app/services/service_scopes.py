"""Services without a scope of their own, when their nodes come into another policy group: whatever held them back goes
along, in the transaction that moves them (see docs/decisions/0024-floors-move-along.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from app.core.actors import Actor
from app.core.groups import Group, Grouping
from app.core.rollouts import TERMINAL, RolloutState
from app.core.services import NOTHING_SAID, PEAK_DAYS, ChangeCause, Said, kept, label_of, stricter
from app.core.snapshot import ServiceKey, ServiceView
from app.services.service_views import DAY_S, Frozen, service_views
from app.store import audit, groups, nodes, rollouts, service_changes, service_rises, snapshot
from app.store import services as store
from app.store.database import Change
from app.store.rollouts import Rollout
from app.store.service_changes import Told
from app.store.services import Word

_OPEN = frozenset(RolloutState) - TERMINAL


@dataclass(frozen=True, slots=True)
class Cause:
    """Why nodes are in another policy group."""

    actor: Actor
    what: str
    """`group blue changed`"""
    now: float


@dataclass(frozen=True, slots=True)
class Shift:
    """A node whose policy group has another name now; empty: none."""

    node_id: str
    old: str
    new: str


Pair = tuple[ServiceKey, ServiceKey]
"""A service as it was called, and as it is."""


def lock(change: Change) -> None:
    """The rollouts under way, whose numbers may have to move along: between the fleet's row and those of nodes."""
    rollouts.lock_all(change.conn, _OPEN)


def groups_changed(
    change: Change, before: Sequence[Group], cause: Cause, renamed: tuple[str, str] | None = None
) -> None:
    """After groups were changed in this transaction, which holds the fleet's row. `renamed`: a group's old and new
    name; what was said of services that run nowhere now goes along with it."""
    was, found = Grouping(before), Grouping(groups.all_groups(change.conn))
    shifts = []
    for node_id, labels in service_changes.labels_of_hosts(change.conn):
        old, new = _name(was.of(labels)), _name(found.of(labels))
        if old != new:
            shifts.append(Shift(node_id, old, new))
    _move(change, shifts, cause, renamed)


def labels_changed(
    change: Change, node_id: str, before: Mapping[str, str], after: Mapping[str, str], cause: Cause
) -> None:
    """A node has other labels in this transaction, which holds the fleet's row, and called `lock`."""
    grouping = Grouping(groups.all_groups(change.conn))
    old, new = _name(grouping.of(before)), _name(grouping.of(after))
    if old != new:
        _move(change, [Shift(node_id, old, new)], cause, None)


def _name(member_of: Sequence[Group]) -> str:
    return member_of[0].name if member_of else ""


def _move(change: Change, shifts: Sequence[Shift], cause: Cause, renamed: tuple[str, str] | None) -> None:
    conn = change.conn
    nodes.lock_rows(conn, sorted(shift.node_id for shift in shifts))
    moved, arrived = _move_replicas(change, shifts)
    pairs = sorted({*moved, *(_nowhere(change, *renamed) if renamed is not None else ())})
    if not pairs:
        return
    lost: Counter[ServiceKey] = Counter()
    for (old, _), number in moved.items():
        lost[old] += number
    before = _views(change, sorted({old for old, _ in pairs}), lost, cause.now)
    there = service_changes.totals(conn, sorted({new for _, new in pairs}))
    joined = _views(change, [total.key for total in there if total.nodes > arrived[total.key]], {}, cause.now)
    _carry_seen(change, pairs, cause.now)
    _carry_frozen(change, pairs)
    _carry_words(change, pairs, before, joined, cause)
    _tell(change, moved, cause)
    change.touch("services", "replicas", "fleet", *{f"service:{key[0]}/{key[1]}" for pair in pairs for key in pair})


def _move_replicas(change: Change, shifts: Sequence[Shift]) -> tuple[dict[Pair, int], Counter[ServiceKey]]:
    """What the time line knows of these nodes, under the new names: healthy replicas of each service; and on how many
    nodes none was called so before."""
    conn, ids = change.conn, sorted(shift.node_id for shift in shifts)
    told, contents = service_changes.told(conn, ids), snapshot.contents(conn, ids)
    changed: dict[tuple[str, ServiceKey], Told] = {}
    new: dict[tuple[str, ServiceKey], Told] = {}
    gone: list[tuple[str, ServiceKey]] = []
    replicas: Counter[Pair] = Counter()
    for shift in shifts:
        here = contents.get(shift.node_id, ())
        own = {(content.scope, content.service) for content in here if content.scope}
        known = told.get(shift.node_id, {})
        for content in here:
            if content.scope:
                continue
            pair = (shift.old, content.service), (shift.new, content.service)
            before, there = known.get(pair[0]), known.get(pair[1])
            replicas[pair] += 0
            if before is None:
                continue
            stays = pair[0] in own
            number = min(before.healthy, content.healthy) if stays else before.healthy
            replicas[pair] += number
            if stays:
                changed[shift.node_id, pair[0]] = replace(before, healthy=before.healthy - number)
            else:
                gone.append((shift.node_id, pair[0]))
            arrived = Told(number, before.boot_id, content.labelled, content.per_node)
            if there is None:
                new[shift.node_id, pair[1]] = arrived
            else:
                changed[shift.node_id, pair[1]] = replace(there, healthy=there.healthy + number)
    service_changes.tell(conn, changed, new, gone)
    return dict(replicas), Counter(key for _, key in new)


def _nowhere(change: Change, old: str, new: str) -> Iterable[Pair]:
    """Services of a scope that has another name now of which somebody said something and that run nowhere."""
    spoken = [key for key in store.words(change.conn) if key[0] == old]
    running = {total.key for total in service_changes.totals(change.conn, spoken)}
    return [(key, (new, key[1])) for key in spoken if key not in running]


# --- what goes along ----------------------------------------------------------------------------------------


def _carry_seen(change: Change, pairs: Sequence[Pair], now: float) -> None:
    """As many are expected as before: the most seen, or what a rollout that runs froze."""
    conn, day = change.conn, int(now // DAY_S)
    old = sorted({before for before, _ in pairs})
    peaks = store.peaks(conn, day - PEAK_DAYS, old)
    frozen = Frozen.of(rollouts.in_states(conn, _OPEN - {RolloutState.DRAFT})).expected
    most: dict[ServiceKey, int] = {}
    for before, after in pairs:
        most[after] = max(most.get(after, 0), peaks.get(before, 0), frozen.get(before, 0))
    store.raise_peaks(conn, day, most)
    rises = service_rises.of(conn, sorted({key for pair in pairs for key in pair}))
    new = {
        after: replace(rises[before], healthy=0) for before, after in pairs if before in rises and after not in rises
    }
    service_rises.keep(conn, new, ())


def _carry_words(
    change: Change,
    pairs: Sequence[Pair],
    before: Mapping[ServiceKey, ServiceView],
    joined: Mapping[ServiceKey, ServiceView],
    cause: Cause,
) -> None:
    """What operators said holds under the new name too, of several words the strictest, and no floor and no expected
    number is less than it was. Under the old name it holds as long as something runs there."""
    conn = change.conn
    words = store.words(conn, sorted({key for pair in pairs for key in pair}))
    old_names: defaultdict[ServiceKey, list[ServiceKey]] = defaultdict(list)
    for old, new in pairs:
        old_names[new].append(old)
    now_there = _views(change, sorted(old_names), {}, cause.now)
    for new, olds in old_names.items():
        said = words[new].said if new in words else NOTHING_SAID
        wanted = said
        for old in olds:
            was = words[old].said if old in words else NOTHING_SAID
            wanted = was if wanted == NOTHING_SAID else stricter(was, wanted)
        parts = [before[old] for old in olds] + ([joined[new]] if new in joined else [])
        wanted = kept(wanted, now_there[new], parts)
        if wanted != said:
            author = next((words[old] for old in olds if old in words and words[old].said == wanted), None)
            reason = f"moved from {_named(olds)}: {cause.what}"
            _say(change, new, wanted, author, reason, cause)
            _audit(change, "service.move", new, said, wanted, reason, cause)
    running = {total.key for total in service_changes.totals(conn, sorted(before))}
    for old in sorted(before.keys() & words.keys() - running - old_names.keys()):
        store.forget(conn, old)
        _audit(
            change, "service.clear", old, words[old].said, NOTHING_SAID, f"nothing is called so: {cause.what}", cause
        )


def _say(change: Change, key: ServiceKey, said: Said, author: Word | None, reason: str, cause: Cause) -> None:
    if author is not None:
        store.say(change.conn, key, said, author.actor, author.reason, author.changed_at or cause.now)
    else:
        store.say(change.conn, key, said, cause.actor.name, reason, cause.now)


def _audit(change: Change, action: str, key: ServiceKey, before: Said, after: Said, reason: str, cause: Cause) -> None:
    subject = f"service:{label_of(key)}"
    audit.append(change.conn, cause.actor, action, subject, reason, asdict(before), asdict(after), cause.now)


def _named(keys: Iterable[ServiceKey]) -> str:
    return " and ".join(label_of(key) for key in keys)


def _views(
    change: Change, keys: Sequence[ServiceKey], more: Mapping[ServiceKey, int], now: float
) -> dict[ServiceKey, ServiceView]:
    """The services as plans see them; `more`: replicas of them that are called otherwise by now."""
    conn = change.conn
    healthy = dict.fromkeys(keys, 0) | {total.key: total.healthy for total in service_changes.totals(conn, keys)}
    healthy = {key: number + more.get(key, 0) for key, number in healthy.items()}
    scopes = {scope for scope, _ in keys if scope}  # names of groups, also of those that are no more
    frozen = Frozen.of(rollouts.in_states(conn, _OPEN - {RolloutState.DRAFT}))
    return service_views(conn, healthy, scopes, frozen, now)


def _carry_frozen(change: Change, pairs: Sequence[Pair]) -> None:
    """What rollouts under way froze and allow is so under the new names as well."""
    new_names: defaultdict[ServiceKey, set[ServiceKey]] = defaultdict(set)
    for before, after in pairs:
        new_names[before].add(after)
    for rollout in rollouts.in_states(change.conn, _OPEN):
        expected, allowances = _renamed(rollout, new_names)
        if expected != rollout.expected or allowances != rollout.allowances:
            values = {"expected": rollouts.expected_json(expected), "allowances": rollouts.keys_json(allowances)}
            rollouts.change(change.conn, rollout.id, **values)
            change.touch("rollouts", f"rollout:{rollout.id}")


def _renamed(
    rollout: Rollout, new_names: Mapping[ServiceKey, Iterable[ServiceKey]]
) -> tuple[dict[ServiceKey, int], frozenset[ServiceKey]]:
    expected = dict(rollout.expected)
    for key, replicas in rollout.expected.items():
        for after in new_names.get(key, ()):
            expected[after] = max(replicas, expected.get(after, 0))
    allowed = {after for key in rollout.allowances for after in new_names.get(key, ())}
    return expected, rollout.allowances | allowed


def _tell(change: Change, moved: Mapping[Pair, int], cause: Cause) -> None:
    """One line where replicas went and one where they came, instead of one of each container that stopped."""
    conn = change.conn
    told = {pair: number for pair, number in moved.items() if number}
    healthy = {total.key: total.healthy for total in service_changes.totals(conn, sorted({k for p in told for k in p}))}
    rows = []
    for pair, number in sorted(told.items()):
        old, new = (f"scope {key[0]}" if key[0] else "no scope" for key in pair)
        text = f"moved from {old} to {new} because {cause.what} (by {cause.actor.name})"
        rows += [_row(pair[0], -number, healthy, text, cause.now), _row(pair[1], number, healthy, text, cause.now)]
    service_changes.add(conn, rows)


def _row(key: ServiceKey, number: int, healthy: Mapping[ServiceKey, int], text: str, now: float) -> dict[str, object]:
    return {
        "at": now,
        "scope": key[0],
        "name": key[1],
        "node_id": None,
        "change": number,
        "healthy": healthy.get(key, 0),
        "cause": ChangeCause.SCOPE.value,
        "text": text,
        "operation_id": None,
        "rollout_id": None,
    }
