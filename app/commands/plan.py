"""`twinroot plan`: explain a saved snapshot of the fleet, with no database."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.core import snapshot_file
from app.core.errors import Invalid
from app.core.plan_check import check
from app.core.plan_text import render
from app.core.planner import plan as make_plan

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--snapshot", "source", type=_FILE, required=True, help="A saved snapshot; - reads standard input.")
@click.option("--check", "checked", is_flag=True, help="Also judge the plan by the independent checker.")
def plan(source: Path, checked: bool) -> None:
    """Print what a saved snapshot's rollouts would do: who may go now, waves, holds, worst moments, duration."""
    snapshot = snapshot_file.load(_content(source), str(source))
    made = make_plan(snapshot)
    click.echo(render(made, snapshot), nl=False)
    violations = check(made, snapshot) if checked else []
    if violations:
        raise click.ClickException("; ".join(f"{one.node} {one.text}" for one in violations))
    if checked:
        click.echo("The checker finds nothing wrong.")


def _content(source: Path) -> bytes:
    if str(source) == "-":
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise Invalid("snapshot", f"{source} cannot be read: {error.strerror}.") from error
