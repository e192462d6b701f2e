"""`twinroot rollout`, `twinroot node`: sending back what has moved, also below floors, with a reason."""

from __future__ import annotations

import time
from contextlib import closing

import click
from sqlalchemy import Connection

from app.commands.policy import command_actor
from app.commands.settings import pass_settings
from app.config import Settings
from app.core.errors import NotFound, NotPossible
from app.core.rollouts import TERMINAL
from app.services import floor_overrides, nodes, rollout_reverse
from app.services import rollouts as service
from app.store import floor_overrides as store
from app.store import nodes as store_nodes
from app.store import rollouts
from app.store.database import Database, open_database
from app.store.rollouts import Rollout

_NAMED = 4
_REASON = click.option("--reason", required=True, help="Kept in the audit log.")
OVERRIDE = click.option(
    "--override-floor",
    is_flag=True,
    help="Also where a service falls below its floor, or nobody knows what runs on a node; what is going back already"
    " is let go.",
)


@click.group()
def rollout() -> None:
    """Rollouts: sending back what they moved."""


@rollout.command("roll-back")
@click.argument("number", type=click.IntRange(1, 2**31 - 1))
@click.option(
    "--wave", type=click.IntRange(0, 2**31 - 1), help="Only this one, 0 for the canaries; the rest is paused."
)
@OVERRIDE
@_REASON
@pass_settings
def roll_back_rollout(settings: Settings, number: int, wave: int | None, override_floor: bool, reason: str) -> None:
    """Send back every node that a rollout moved, whether it has ended or not."""
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            found = _numbered(conn, number)
        back = _send_back(db, found, wave, reason, time.time(), override_floor=override_floor)
        with db.read() as conn:
            waits = [] if override_floor else store.held(conn, back.id, _NAMED)
    click.echo(f"Rollout {back.number} sends them back.")
    for one in waits:
        more = f" and {one.nodes - len(one.first):,} more" if one.nodes > len(one.first) else ""
        click.echo(f"{', '.join(name for _, name in one.first)}{more}: {one.text}")


def _send_back(
    db: Database, found: Rollout, wave: int | None, reason: str, now: float, *, override_floor: bool
) -> Rollout:
    """The rollout that sends the nodes back: the same one, or one that reverses it."""
    actor, back_id = command_actor(), found.id
    if override_floor and found.leads_back and found.state not in TERMINAL:
        if wave is not None:
            text = f"Rollout {found.number} is going back as a whole: leave --wave out, or name nodes by twinroot node."
            raise NotPossible("already-underway", text)
        floor_overrides.override_rollout(db, actor, found.id, reason, now)
    elif wave is not None or found.state in TERMINAL:
        back_id = rollout_reverse.reverse(db, actor, found.id, reason, now, wave=wave, override_floor=override_floor)
    else:
        service.roll_back(db, actor, found.id, reason, now, override_floor=override_floor)
    with db.read() as conn:
        return rollouts.get(conn, back_id) or found


@click.group()
def node() -> None:
    """Nodes: sending one back."""


@node.command("roll-back")
@click.argument("name")
@OVERRIDE
@_REASON
@pass_settings
def roll_back_node(settings: Settings, name: str, override_floor: bool, reason: str) -> None:
    """Send a node back to the version before, by its name or its id."""
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            node_id = store_nodes.find(conn, name)
        if node_id is None:
            raise NotFound("node", name)
        nodes.roll_back(db, command_actor(), node_id, reason, time.time(), override_floor=override_floor)
    click.echo(f"{name} goes back{', also below floors' if override_floor else ' when nothing holds it'}.")


def _numbered(conn: Connection, number: int) -> Rollout:
    found = rollouts.by_number(conn, number)
    if found is None:
        raise NotFound("rollout", str(number))
    return found
