"""Version share over time as stacked bands: samples → polygons, so that the page draws it without a script."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.versions import in_order

WIDTH, HEIGHT = 640, 150
"""Of the drawing's own coordinates."""
_POINTS = 80
"""Samples drawn at most: a point every eight units."""
_BANDS = 5
"""Versions with a band of their own; older ones share the last."""


@dataclass(frozen=True, slots=True)
class Band:
    name: str
    versions: tuple[str, ...]
    shade: int
    """1 for the newest version, 6 for all others together."""
    nodes: int
    """Now."""
    points: str
    """Of an SVG polygon."""


@dataclass(frozen=True, slots=True)
class ShareChart:
    bands: tuple[Band, ...]
    since: float
    until: float


def shades(versions: set[str]) -> dict[str, int]:
    """Version → shade: the newest is 1, beyond five all are 6."""
    newest_first = in_order(versions)[::-1]
    return {version: min(rank, _BANDS + 1) for rank, version in enumerate(newest_first, start=1)}


def share_chart(samples: Sequence[tuple[float, str, int]], current: Mapping[str, int], now: float) -> ShareChart | None:
    """`samples`: (time, version, nodes), oldest first; `current`: version → nodes now. None: nothing to draw yet."""
    series: dict[float, dict[str, int]] = {}
    for at, version, nodes in samples:
        if version:
            series.setdefault(at, {})[version] = nodes
    times = _thinned(sorted(at for at in series if at < now))
    columns = [series[at] for at in times] + [{version: count for version, count in current.items() if version}]
    if not times or not any(columns[-1].values()):
        return None
    groups = _groups({version for column in columns for version, count in column.items() if count})
    span = max(now - times[0], 1.0)
    xs = [(at - times[0]) / span * WIDTH for at in times] + [float(WIDTH)]
    bands = []
    below = [0.0] * len(columns)  # share already drawn, from the oldest upwards
    for name, versions, shade in reversed(groups):
        above = [low + _share(column, versions) for low, column in zip(below, columns, strict=True)]
        count = sum(columns[-1].get(version, 0) for version in versions)
        bands.append(Band(name, versions, shade, count, _polygon(xs, below, above)))
        below = above
    return ShareChart(tuple(reversed(bands)), times[0], now)


def _thinned(times: list[float]) -> list[float]:
    """Evenly spread over the time, the first and last kept."""
    if len(times) <= _POINTS:
        return times
    step = (times[-1] - times[0]) / (_POINTS - 1)
    picked = {bisect_right(times, times[0] + step * number + 1e-6) - 1 for number in range(_POINTS)}
    return [times[place] for place in sorted(picked)]


def _groups(versions: set[str]) -> list[tuple[str, tuple[str, ...], int]]:
    newest_first = in_order(versions)[::-1]
    groups: list[tuple[str, tuple[str, ...], int]] = [
        (version, (version,), rank) for rank, version in enumerate(newest_first[:_BANDS], start=1)
    ]
    older = tuple(newest_first[_BANDS:])
    return [*groups, (f"{len(older)} older", older, _BANDS + 1)] if older else groups


def _share(column: Mapping[str, int], versions: tuple[str, ...]) -> float:
    total = sum(column.values())
    return sum(column.get(version, 0) for version in versions) / total if total else 0.0


def _polygon(xs: Sequence[float], below: Sequence[float], above: Sequence[float]) -> str:
    upper = [f"{x:.1f},{HEIGHT * (1 - y):.1f}" for x, y in zip(xs, above, strict=True)]
    lower = [f"{x:.1f},{HEIGHT * (1 - y):.1f}" for x, y in zip(xs, below, strict=True)]
    return " ".join([*upper, *reversed(lower)])
