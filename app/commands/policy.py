"""`twinroot policy`: show and change how updates may go."""

from __future__ import annotations

import getpass
import time

import click

from app.commands.settings import pass_settings
from app.config import Settings
from app.core.actors import Actor, ActorKind
from app.services import fleet
from app.store.database import open_database


def command_actor() -> Actor:
    """Whoever runs a command on the server: the account's name, as far as the machine knows it."""
    name = getpass.getuser()
    return Actor(ActorKind.COMMAND, name, name)


@click.group()
def policy() -> None:
    """Show and change the fleet's policy: soak time, deadlines, lease length, offline grace."""


@policy.command()
@pass_settings
def show(settings: Settings) -> None:
    """Print every field with its value in seconds."""
    db = open_database(settings.database_url)
    with db.read() as conn:
        current = fleet.current_policy(conn)
    for name, value in fleet.fields_of(current):
        click.echo(f"{name}={value:.15g}")
    db.close()


@policy.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="FIELD=DURATION…")
@click.option("--reason", required=True, help="Kept in the audit log.")
@pass_settings
def set_(settings: Settings, changes: tuple[str, ...], reason: str) -> None:
    """Change fields of the policy, for operations that begin from now on. A duration is 90, 90s, 30m, 2h or 7d."""
    db = open_database(settings.database_url)
    fleet.set_policy(db, command_actor(), fleet.parse_changes(changes), reason, time.time())
    db.close()
