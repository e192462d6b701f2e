"""How commands print lists: aligned columns, one line a row, good for eyes and for `awk`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from app.core.errors import Invalid

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under `heads`; an empty cell is a dash, so that columns can be counted."""
    lines = [[cell or "-" for cell in row] for row in (heads, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def moment(at: float | None) -> str:
    """Unix seconds as UTC to the minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ") if at is not None else ""


def duration_s(text: str) -> float:
    """Seconds of `90m`, `24h`, `7d`; Invalid when it is none."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if match is None:
        raise Invalid("duration", f"“{text}” is no duration such as 90m, 24h or 7d.")
    return float(int(match[1]) * _UNITS_S[match[2]])


def file_text(file: Path) -> str:
    """The text of a small file that an operator named; Invalid when it cannot be read as such."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("file", f"{file} cannot be read as text: {error}.") from error
