"""`twinroot server-key`: the keys with which this server proves itself to nodes."""

from __future__ import annotations

import time
from contextlib import closing

import click

from app.commands.output import moment, print_columns
from app.commands.policy import command_actor
from app.commands.settings import pass_settings
from app.config import Settings
from app.services import server_keys
from app.store import server_keys as store
from app.store.database import open_database
from wire.identity import fingerprint


@click.group("server-key")
def server_key() -> None:
    """Show and change the keys with which this server proves itself to nodes."""


@server_key.command()
@pass_settings
def show(settings: Settings) -> None:
    """Print every key, the newest last: nodes pin it, and join commands name it."""
    now = time.time()
    with closing(open_database(settings.database_url)) as db:
        newest = server_keys.current_key(db, settings, now)
        with db.read() as conn:
            keys = store.listed(conn)
    rows = [
        (fingerprint(key.public_key), _state(key, newest.public_key), moment(key.created_at), str(key.nodes))
        for key in keys
    ]
    print_columns(("FINGERPRINT", "STATE", "MADE", "NODES"), rows)


def _state(key: store.ListedKey, newest: str) -> str:
    if key.retired_at is not None:
        return f"retired {moment(key.retired_at)}"
    return "newest" if key.public_key == newest else "accepted"


@server_key.command()
@click.option("--reason", required=True, help="Kept in the audit log.")
@pass_settings
def rotate(settings: Settings, reason: str) -> None:
    """Make a new key. Connected nodes pin it within minutes; the old one works until it is retired."""
    with closing(open_database(settings.database_url)) as db:
        made = server_keys.rotate(db, settings, command_actor(), reason=reason, now=time.time())
    click.echo(made.fingerprint)
    click.echo("Watch the nodes come over with: twinroot server-key show", err=True)


@server_key.command()
@click.argument("fingerprint_", metavar="FINGERPRINT")
@click.option("--force", is_flag=True, help="Although nodes still pin it: they will have to join again.")
@click.option("--reason", required=True, help="Kept in the audit log.")
@pass_settings
def retire(settings: Settings, fingerprint_: str, force: bool, reason: str) -> None:
    """End an old key, named by its fingerprint or the beginning of it. Join commands that name it end with it."""
    with closing(open_database(settings.database_url)) as db:
        cut_off = server_keys.retire(db, command_actor(), fingerprint_, force=force, reason=reason, now=time.time())
    click.echo(f"{fingerprint_} is retired.")
    if cut_off:
        click.echo(f"These nodes have to join again: {', '.join(cut_off)}")
