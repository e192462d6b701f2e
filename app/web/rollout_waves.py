"""Waves as rows: a cell a node while they are few, a bar of parts where they are many. Pure: rows in, markup out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup, escape

from app.core.rollout_progress import Band, Progress, bands
from app.store.rollout_cells import Cell, WaveCount

MOST_CELLS = 600
"""More nodes are drawn as bars: thousands of links make a page slow and say no more."""
_MOST_ROWS = 24
"""More waves share rows."""
_BAR_UNITS = 1000
"""Width of a bar in its own units."""


_FILLS = (
    Progress.DONE,
    Progress.BACK,
    Progress.FAILED,
    Progress.GOING_BACK,
    Progress.SOAKING,
    Progress.MOVING,
    Progress.STAGED,
    Progress.STAGING,
    Progress.HELD,
    Progress.WAITING,
    Progress.LEFT,
)
"""From left to right, so that a bar fills."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar; `x` and `width` in thousandths of it."""

    progress: Progress
    nodes: int
    x: float
    width: float
    href: str


@dataclass(frozen=True, slots=True)
class WaveRow:
    label: str
    href: str
    nodes: int
    words: str
    parts: tuple[Part, ...]
    cells: Markup | None
    """None: too many nodes; the bar stands alone."""


def wave_rows(counts: Sequence[WaveCount], cells: Sequence[Cell] | None, base: str) -> list[WaveRow]:
    """Rows by wave. `cells`: all nodes by wave, where each is drawn. `base`: address of the nodes' list."""
    by_wave: dict[int, dict[Progress, int]] = defaultdict(lambda: dict.fromkeys(Progress, 0))
    for each in counts:
        by_wave[each.wave][each.progress] += each.nodes
    drawn: dict[int, list[Cell]] = defaultdict(list)
    for cell in cells or ():
        drawn[cell.wave].append(cell)
    return [
        _row(
            band,
            _together(by_wave[wave] for wave in by_wave if band.first <= wave <= band.last),
            [cell for wave in sorted(drawn) if band.first <= wave <= band.last for cell in drawn[wave]]
            if cells is not None
            else None,
            base,
        )
        for band in bands(sorted(by_wave), _MOST_ROWS)
    ]


def counts_of(cells: Iterable[Cell]) -> list[WaveCount]:
    """As the store counts them."""
    found: dict[tuple[int, Progress], int] = defaultdict(int)
    for cell in cells:
        found[cell.wave, cell.progress] += 1
    return [WaveCount(wave, reached, nodes) for (wave, reached), nodes in sorted(found.items())]


def totals(counts: Iterable[WaveCount]) -> dict[Progress, int]:
    """Nodes in each progress, in the order of the way; none that is empty."""
    sums = dict.fromkeys(Progress, 0)
    for each in counts:
        sums[each.progress] += each.nodes
    return {reached: nodes for reached, nodes in sums.items() if nodes}


def list_address(base: str, **wanted: str) -> str:
    """The list of just these nodes."""
    return f"{base}?{urlencode(wanted)}"


def _together(waves: Iterable[Mapping[Progress, int]]) -> dict[Progress, int]:
    sums = dict.fromkeys(Progress, 0)
    for wave in waves:
        for reached, nodes in wave.items():
            sums[reached] += nodes
    return {reached: nodes for reached, nodes in sums.items() if nodes}


def _row(band: Band, sums: dict[Progress, int], cells: Sequence[Cell] | None, base: str) -> WaveRow:
    waves = str(band.first) if band.first == band.last else f"{band.first}-{band.last}"
    nodes = sum(sums.values())
    return WaveRow(
        label="Canaries"
        if band.first == 0
        else f"Wave{'s' if band.last > band.first else ''} {waves.replace('-', '–')}",
        href=list_address(base, wave=waves),
        nodes=nodes,
        words=words(sums),
        parts=parts_of(sums, base, wave=waves),
        cells=None if cells is None else cells_of(cells),
    )


def words(sums: dict[Progress, int]) -> str:
    """`12 done, 8 soaking`, in the order in which a bar fills."""
    if set(sums) <= {Progress.WAITING}:
        return f"{sum(sums.values()):,} waiting" if sums else "empty"
    return ", ".join(f"{sums[reached]:,} {reached.words}" for reached in _FILLS if reached in sums)


def parts_of(sums: dict[Progress, int], base: str, **wanted: str) -> tuple[Part, ...]:
    """A bar of all that `sums` counts. `wanted`: of which nodes, as lists ask for."""
    parts, x, nodes = [], 0.0, sum(sums.values())
    for reached in (each for each in _FILLS if each in sums):
        number = sums[reached]
        width = _BAR_UNITS * number / nodes
        href = list_address(base, **wanted, state=reached.value)
        parts.append(Part(reached, number, round(x, 2), round(width, 2), href))
        x += width
    return tuple(parts)


def cells_of(cells: Iterable[Cell]) -> Markup:
    """One stop of the tab key a row: arrow keys go on from there (heat.js)."""
    links = [
        f'<a href="/nodes/{cell.node_id}" class="p-{cell.progress.value}" '
        f'title="{escape(cell.name)}: {cell.progress.words}"{" tabindex=-1" if number else ""}></a>'
        for number, cell in enumerate(cells)
    ]
    return Markup("".join(links))  # noqa: S704 -- names are escaped, ids and kinds are ours
