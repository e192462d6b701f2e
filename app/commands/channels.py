"""`twinroot channel`: where channels point."""

from __future__ import annotations

import time
from contextlib import closing

import click

from app.commands.output import moment, print_columns
from app.commands.policy import command_actor
from app.commands.settings import pass_settings
from app.config import Settings
from app.core.errors import NotFound, NotPossible
from app.core.image_identity import image_name
from app.services import channels
from app.store import channels as store
from app.store import images
from app.store.database import open_database


@click.group()
def channel() -> None:
    """Named, moving pointers to images."""


@channel.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Print what each channel points at, for each OS and architecture."""
    with closing(open_database(settings.database_url)) as db, db.read() as conn:
        every, pointers = store.all_channels(conn), store.pointers(conn)
    rows = [(move.channel, move.os, move.arch, move.version, moment(move.at), move.actor) for move in pointers]
    pointing = {move.channel_id for move in pointers}
    rows += [(one.name, "", "", "", "", "") for one in every if one.id not in pointing]
    print_columns(("CHANNEL", "OS", "ARCH", "VERSION", "SINCE", "BY"), rows)


@channel.command()
@click.argument("name")
@click.option("--reason", default="", help="Kept in the audit log.")
@pass_settings
def create(settings: Settings, name: str, reason: str) -> None:
    """Make a new channel that points nowhere yet."""
    with closing(open_database(settings.database_url)) as db:
        channels.create(db, command_actor(), name, reason, time.time())
    click.echo(f"Channel {name} exists.")


@channel.command()
@click.argument("name")
@click.option("--os", required=True, help="OS name, as ID in os-release.")
@click.option("--arch", required=True, help="Architecture: amd64, arm64, …")
@click.option("--version", required=True, help="Version that the channel shall point at.")
@click.option("--from", "expected", help="Refuse unless the channel points at this version now.")
@click.option("--reason", required=True, help="Kept in the channel's history.")
@pass_settings
def promote(settings: Settings, name: str, os: str, arch: str, version: str, expected: str | None, reason: str) -> None:
    """Point a channel at an image."""
    wanted = image_name(os, arch, version)
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            found, image = store.find(conn, name), images.find(conn, wanted)
            if found is None:
                raise NotFound("channel", name)
            if image is None:
                raise NotFound("image", str(wanted))
            seen = store.current(conn, found.id, image.os, image.arch)
            before = images.get(conn, seen) if seen else None
        if expected is not None and (before is None or before.version != expected):
            now_at = before.version if before else "nothing"
            raise NotPossible("moved-meanwhile", f"{name} points at {now_at}, not {expected}; it was not moved.")
        channels.promote(db, command_actor(), found.id, image.id, seen_image_id=seen, reason=reason, now=time.time())
    click.echo(f"{name} points at {wanted}.")
