"""Services as plans see them, put together from what operators said, labels ask for and was seen. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass

from sqlalchemy import Connection

from app.core.errors import Invalid
from app.core.rollouts import ACTIVE
from app.core.services import NOTHING_SAID, PEAK_DAYS, Said, Seen, label_of, view
from app.core.snapshot import ServiceKey, ServiceView
from app.store import groups
from app.store import services as store
from app.store.rollouts import Rollout

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Frozen:
    """What rollouts under way hold services to."""

    expected: Mapping[ServiceKey, int]
    """The most that any of them that runs froze at its start."""
    least: Mapping[ServiceKey, int]
    """The most that any of them froze that is paused or halted: it may go on, so it lowers nothing, and nothing that is
    seen meanwhile goes below it."""
    allowed: Mapping[ServiceKey, tuple[str, ...]]
    """Single replicas that some of them may move, and ids of those."""

    @staticmethod
    def of(rollouts: Iterable[Rollout]) -> Frozen:
        expected: dict[ServiceKey, int] = {}
        least: dict[ServiceKey, int] = {}
        allowed: dict[ServiceKey, tuple[str, ...]] = {}
        for rollout in rollouts:
            allowed |= {key: (*allowed.get(key, ()), rollout.id) for key in rollout.allowances}
            held = expected if rollout.state in ACTIVE else least
            for key, replicas in rollout.expected.items():
                held[key] = max(replicas, held.get(key, 0))
        return Frozen(expected, least, allowed)

    def view(self, key: ServiceKey, said: Said, seen: Seen) -> ServiceView:
        """The service as plans see it."""
        frozen, least = self.expected.get(key, 0), self.least.get(key, 0)
        return view(key, said, seen, frozen=frozen, least=least, allowed_for=self.allowed.get(key, ()))


NOTHING_FROZEN = Frozen({}, {}, {})


def check_known(conn: Connection, keys: Collection[ServiceKey]) -> None:
    """Invalid names a service that nobody ever saw or said anything of: a slip of the pen would allow nothing."""
    known = store.known(conn, sorted(keys), groups.names(conn)) if keys else set()
    for key in sorted(keys):
        if key not in known:
            raise Invalid("allowances", f"There is no service “{label_of(key)}”, so nothing can be allowed to it.")


def expected_now(
    conn: Connection, known: Mapping[ServiceKey, int], group_names: Set[str], now: float
) -> dict[ServiceKey, int]:
    """How many replicas are expected of these services whatever rollouts froze; of those that were never seen as many
    as in `known`."""
    views = service_views(conn, known, group_names, NOTHING_FROZEN, now)
    return {key: view.expected for key, view in views.items()}


def service_views(
    conn: Connection,
    healthy: Mapping[ServiceKey, int],
    group_names: Set[str],
    frozen: Frozen,
    now: float,
    *,
    all_of_them: bool = False,
) -> dict[ServiceKey, ServiceView]:
    """The services that are keys of `healthy` (replicas on nodes that are up now). `all_of_them`: these are so many
    that whole tables are read at once."""
    keys = None if all_of_them else sorted(healthy)
    as_labelled = None if keys is None else sorted({*keys, *(("", name) for _, name in keys)})
    words = store.words(conn, keys)
    peaks = store.peaks(conn, int(now // DAY_S) - PEAK_DAYS, keys)
    labels: defaultdict[ServiceKey, list[tuple[int | None, bool]]] = defaultdict(list)
    for row in store.labels_of(conn, as_labelled):
        labels[(row.scope, row.service)].append((row.labelled, bool(row.per_node)))
    found = {}
    for key, number in healthy.items():
        own = labels.get(key, [])
        if key[0] in group_names:  # containers without a scope of their own are of their node's group
            own = [*own, *labels.get(("", key[1]), ())]
        said = words[key].said if key in words else NOTHING_SAID
        seen = store.seen(number, own, peaks.get(key, 0))
        found[key] = frozen.view(key, said, seen)
    return found
