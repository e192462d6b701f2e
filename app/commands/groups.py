"""`twinroot group`, `twinroot freeze`, `twinroot thaw`: groups with their policies, and freezes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime

import click
from sqlalchemy import Connection

from app.commands.output import moment, print_columns
from app.commands.policy import command_actor
from app.commands.settings import pass_settings
from app.config import Settings
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.groups import Group
from app.core.policy_text import field_texts, read_changes
from app.services import freezes, groups, rollout_reverse
from app.services.group_way_back import GroupWayBack, way_back_of_group
from app.store import freezes as freeze_rows
from app.store import groups as store
from app.store import rollouts
from app.store.database import open_database

_FIELDS = click.argument("fields", nargs=-1, metavar="[FIELD=VALUE…]")
_SELECTOR = click.option("--selector", help="Labels, as in zone=a,role!=db,canary,!lab; * for every node.")
_PRECEDENCE = click.option("--precedence", type=int, help="Of a node's groups the highest decides; 0 unless given.")
_CHANNEL = click.option("--channel", help="Channel that the group follows.")
_NAMED = 4
_REASON = click.option("--reason", required=True, help="Kept in the audit log.")


@click.group()
def group() -> None:
    """Groups of nodes: which labels they select, and the policy of their updates."""


@group.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Print the groups in the order in which they decide."""
    with closing(open_database(settings.database_url)) as db, db.read() as conn:
        now = time.time()
        found = [groups.describe(conn, each.id, now) for each in store.all_groups(conn)]
    rows = [
        (
            each.group.name,
            each.group.selector.text,
            str(each.group.precedence),
            each.channel,
            str(each.members),
            "frozen" if any(one.holds_at(now) for one in each.freezes) else "open" if each.open_now else "closed",
        )
        for each in found
    ]
    print_columns(("NAME", "SELECTOR", "PRECEDENCE", "CHANNEL", "NODES", "NOW"), rows)


@group.command()
@click.argument("name")
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Print every field of a group's policy as `group set` takes it, and when its windows open next."""
    with closing(open_database(settings.database_url)) as db, db.read() as conn:
        found = groups.describe(conn, _named(conn, name).id, time.time())
    for field, text in field_texts(found.group.policy).items():
        click.echo(f"{field}={shlex.quote(text) if text else ''}")
    for opens, closes in found.openings:
        click.echo(f"# open {moment(opens)} to {'ever' if closes == float('inf') else moment(closes)}")


@group.command()
@click.argument("name")
@_FIELDS
@click.option("--selector", required=True, help="Labels, as in zone=a,role!=db,canary,!lab; * for every node.")
@_PRECEDENCE
@_CHANNEL
@_REASON
@pass_settings
def add(
    settings: Settings,
    name: str,
    fields: tuple[str, ...],
    selector: str,
    precedence: int | None,
    channel: str | None,
    reason: str,
) -> None:
    """Make a group, with fields of its policy as in soak_s=30m canaries=5%."""
    wish = groups.Wish(name, selector, precedence, channel, read_changes(_typed(fields)))
    with closing(open_database(settings.database_url)) as db:
        groups.create(db, command_actor(), wish, reason, time.time())
    click.echo(f"Group {name} exists.")


@group.command("set")
@click.argument("name")
@_FIELDS
@_SELECTOR
@_PRECEDENCE
@_CHANNEL
@click.option("--rename", help="Its new name.")
@_REASON
@pass_settings
def set_(
    settings: Settings,
    name: str,
    fields: tuple[str, ...],
    selector: str | None,
    precedence: int | None,
    channel: str | None,
    rename: str | None,
    reason: str,
) -> None:
    """Change a group; FIELD= takes a field back to its default, --channel '' follows none."""
    wish = groups.Wish(rename, selector, precedence, channel, read_changes(_typed(fields)))
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            group_id = _named(conn, name).id
        groups.change(db, command_actor(), group_id, wish, reason, time.time())


@group.command()
@click.argument("name")
@_REASON
@pass_settings
def remove(settings: Settings, name: str, reason: str) -> None:
    """Remove a group; its nodes stay, and other groups or the fleet's policy decide."""
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            group_id = _named(conn, name).id
        groups.remove(db, command_actor(), group_id, reason, time.time())


@group.command("roll-back")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would go back to what; nothing is changed.")
@click.option("--override-floor", is_flag=True, help="Also below floors, and where nobody knows what runs on a node.")
@_REASON
@pass_settings
def roll_back(settings: Settings, name: str, dry_run: bool, override_floor: bool, reason: str) -> None:
    """Send each node of a group back to what it ran before; the group's updates stop."""
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            group_id = _named(conn, name).id
            found = way_back_of_group(conn, group_id)
        made_id = None
        if not dry_run:
            actor, floor = command_actor(), override_floor
            made_id = rollout_reverse.reverse_group(db, actor, group_id, reason, time.time(), override_floor=floor)
        for line in _told(found):
            click.echo(line)
        if made_id is not None:
            with db.read() as conn:
                made = rollouts.get(conn, made_id)
            click.echo(f"Rollout {made.number if made is not None else made_id} sends them back.")


def _told(found: GroupWayBack) -> Iterator[str]:
    for stop in found.stops:
        yield f"stops and rolls back rollout {stop.number} to {stop.version}"
    for back in found.backs:
        how = f"{back.local:,} from their slot" if back.local else "downloaded"
        yield f"{back.nodes:,} from {back.version} back to {back.before or 'the version before'} ({how})"
    for why, names in found.reasons:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        yield f"{len(names):,} stay: {why} ({', '.join(names[:_NAMED])}{more})"


@click.command()
@click.option("--group", "name", help="Only this group; else the whole fleet.")
@click.option("--until", help="End, as 2026-12-24T06:00+01:00; else until it is thawed.")
@_REASON
@pass_settings
def freeze(settings: Settings, name: str | None, until: str | None, reason: str) -> None:
    """Activate nothing from now on, in the fleet or in a group. Ways back stay open."""
    ends_at = _moment(until) if until else None
    with closing(open_database(settings.database_url)) as db:
        with db.read() as conn:
            group_id = _named(conn, name).id if name else None
        freezes.freeze(db, command_actor(), group_id=group_id, reason=reason, now=time.time(), ends_at=ends_at)


@click.command()
@click.option("--group", "name", help="Only this group; else the whole fleet.")
@_REASON
@pass_settings
def thaw(settings: Settings, name: str | None, reason: str) -> None:
    """Lift the freezes of the fleet or of a group, those to come too."""
    with closing(open_database(settings.database_url)) as db:
        now = time.time()
        with db.read() as conn:
            group_id = _named(conn, name).id if name else None
            found = [each for each in freeze_rows.not_over(conn, now) if each.group_id == group_id]
        if not found:
            raise NotPossible("not-frozen", f"{f'Group {name}' if name else 'The fleet'} is not frozen.")
        for each in found:
            freezes.lift(db, command_actor(), each.id, reason, now)


def _named(conn: Connection, name: str) -> Group:
    found = store.by_name(conn, name)
    if found is None:
        raise NotFound("group", name)
    return found


def _typed(fields: Sequence[str]) -> dict[str, str]:
    typed = {}
    for each in fields:
        name, equals, value = each.partition("=")
        if not equals:
            raise Invalid(name, f"“{each}” is not FIELD=VALUE.")
        typed[name] = value
    return typed


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid("until", f"“{text}” is no time such as 2026-12-24T06:00+01:00.") from error
    if found.tzinfo is None:
        raise Invalid("until", f"“{text}” does not say its zone, as 2026-12-24T06:00+01:00 or 2026-12-24T05:00Z does.")
    return found.timestamp()
