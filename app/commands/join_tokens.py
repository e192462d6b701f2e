"""`twinroot join-token`: let machines in."""

from __future__ import annotations

import time
from contextlib import closing

import click

from app.commands.output import duration_s, moment, print_columns
from app.commands.policy import command_actor
from app.commands.settings import pass_settings
from app.config import Settings
from app.core.errors import NotFound
from app.core.labels import parse_labels
from app.services import joining, server_keys
from app.store import channels, join_tokens
from app.store.database import Database, open_database


@click.group("join-token")
def join_token() -> None:
    """Let machines join as nodes."""


@join_token.command()
@click.option("--uses", default=1, show_default=True, help="How many machines may join with it.")
@click.option("--expires", default="24h", show_default=True, help="For how long: 90m, 24h, 7d.")
@click.option("--network", "networks", multiple=True, help="CIDR that machines must come from; may be repeated.")
@click.option("--label", "labels", multiple=True, help="key=value that each node gets; may be repeated.")
@click.option("--channel", help="Name of the channel that nodes follow.")
@click.option("--admit/--approve", default=False, help="Admit at once, or after an operator's approval (default).")
@click.option("--note", default="", help="What it is for.")
@click.option("--reason", default="", help="Kept in the audit log.")
@pass_settings
def create(
    settings: Settings,
    uses: int,
    expires: str,
    networks: tuple[str, ...],
    labels: tuple[str, ...],
    channel: str | None,
    admit: bool,
    note: str,
    reason: str,
) -> None:
    """Make a join token and print the command to run on the machine. The token is shown this once."""
    now = time.time()
    with closing(open_database(settings.database_url)) as db:
        token_id, token = joining.create_token(
            db,
            command_actor(),
            note=note,
            max_uses=uses,
            expires_at=now + duration_s(expires),
            networks=networks,
            labels=parse_labels(labels),
            admit=admit,
            channel_id=_channel_id(db, channel) if channel else None,
            reason=reason,
            now=now,
        )
        key = server_keys.current_key(db, settings, now)
    click.echo(joining.join_command(settings, key.fingerprint, token))
    click.echo(
        f"Token {token_id}: {uses} use{'s' if uses != 1 else ''}, until {moment(now + duration_s(expires))}.", err=True
    )


@join_token.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Print the tokens, the youngest first."""
    now = time.time()
    with closing(open_database(settings.database_url)) as db, db.read() as conn:
        tokens = join_tokens.newest(conn)
    rows = [
        (
            token.id,
            token.state(now).value,
            f"{token.uses_left}/{token.max_uses}",
            moment(token.expires_at),
            ",".join(token.networks),
            ",".join(f"{key}={value}" for key, value in token.labels.items()),
            token.channel,
            "at once" if token.admit else "after approval",
            token.note,
        )
        for token in tokens
    ]
    heads = ("ID", "STATE", "USES LEFT", "EXPIRES", "NETWORKS", "LABELS", "CHANNEL", "ADMITS", "NOTE")
    print_columns(heads, rows)


@join_token.command()
@click.argument("token_id")
@click.option("--reason", default="", help="Kept in the audit log.")
@pass_settings
def revoke(settings: Settings, token_id: str, reason: str) -> None:
    """No further joins with this token; nodes that joined with it stay."""
    with closing(open_database(settings.database_url)) as db:
        joining.revoke_token(db, command_actor(), token_id, reason, time.time())
    click.echo(f"{token_id} is revoked.")


def _channel_id(db: Database, name: str) -> str:
    with db.read() as conn:
        channel = channels.find(conn, name)
    if channel is None:
        raise NotFound("channel", name)
    return channel.id
