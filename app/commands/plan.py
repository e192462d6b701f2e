"""`twinroot plan`: save a snapshot of the fleet, and explain a saved one with no database."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from app.commands.settings import pass_settings
from app.config import Settings
from app.core import snapshot_file
from app.core.errors import Invalid
from app.core.plan_check import check
from app.core.plan_text import render
from app.core.planner import plan as make_plan
from app.services.fleet_snapshot import gather
from app.store.database import open_database

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--snapshot", "source", type=_FILE, help="A saved snapshot; - reads standard input.")
@click.option("--check", "checked", is_flag=True, help="Also judge the plan by the independent checker.")
@click.option("--save", "target", type=_FILE, help="Write a snapshot of the fleet as the database has it now.")
def plan(source: Path | None, checked: bool, target: Path | None) -> None:
    """Print what a saved snapshot's rollouts would do: who may go now, waves, holds, worst moments, duration."""
    if (source is None) == (target is None):
        raise Invalid("snapshot", "Give either --snapshot FILE to explain one, or --save FILE to write one.")
    if target is not None:
        _save(target)
        return
    assert source is not None, "one of the two is given"
    snapshot = snapshot_file.load(_content(source), str(source))
    made = make_plan(snapshot)
    click.echo(render(made, snapshot), nl=False)
    violations = check(made, snapshot) if checked else []
    if violations:
        raise click.ClickException("; ".join(f"{one.node} {one.text}" for one in violations))
    if checked:
        click.echo("The checker finds nothing wrong.")


@pass_settings
def _save(settings: Settings, target: Path) -> None:
    db = open_database(settings.database_url)
    try:
        content = snapshot_file.dump(gather(db, time.time()))
    finally:
        db.close()
    try:
        target.write_bytes(content)
    except OSError as error:
        raise Invalid("save", f"{target} cannot be written: {error.strerror}.") from error
    click.echo(f"Saved {len(content):,} bytes to {target}; twinroot plan --snapshot {target} explains it.")


def _content(source: Path) -> bytes:
    if str(source) == "-":
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise Invalid("snapshot", f"{source} cannot be read: {error.strerror}.") from error
