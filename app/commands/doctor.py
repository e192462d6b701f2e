"""`twinroot doctor`: is everything there that the control plane needs?"""

from __future__ import annotations

import errno
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click
from sqlalchemy.exc import SQLAlchemyError

from app.commands.settings import pass_settings
from app.config import Address, Settings
from app.core.errors import TwinrootError
from app.services import server_keys
from app.store.database import open_database
from app.store.migrate import missing_revisions
from app.web.assets import has_vendor

_FREE_BYTES = 2 * 1024**3
"""Below this the next image upload is likely to fail."""
_SECRET_CHARS = 16


@click.command()
@pass_settings
def doctor(settings: Settings) -> None:
    """Check settings, database, tables, disk, addresses and static files; exits 1 when something is wrong."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("data folder", lambda: _data_folder(settings.data_dir)),
        ("database", lambda: _database(settings)),
        ("secret", lambda: _secret(settings)),
        ("web address", lambda: _address(settings.http)),
        ("gateway address", lambda: _address(settings.gateway)),
        ("encryption", lambda: _encryption(settings)),
        ("front-end packages", _vendor),
    ]
    failed = 0
    for name, check in checks:
        try:
            click.echo(f"ok    {name}: {check()}")
        except (_Wrong, TwinrootError) as wrong:
            failed += 1
            click.echo(f"WRONG {name}: {wrong}")
    sys.exit(1 if failed else 0)


class _Wrong(Exception):
    pass


def _data_folder(folder: Path) -> str:
    try:
        probe = folder / ".doctor"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise _Wrong(f"{folder} cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise _Wrong(f"{folder} has only {free // 2**20} MiB free")
    return f"{folder}, {free // 2**30} GiB free"


def _database(settings: Settings) -> str:
    db = open_database(settings.database_url)
    try:
        missing = missing_revisions(db)
    except SQLAlchemyError as error:
        raise _Wrong(f"cannot be reached: {str(error).splitlines()[0]}") from error
    finally:
        db.close()
    if missing:
        raise _Wrong(f"{missing} migrations are missing: run `twinroot migrate`")
    return "reachable, tables up to date"


def _address(address: Address) -> str:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _Wrong(f"nothing can listen on {address}: {error.strerror}") from error
            return f"{address} is in use: right while Twinroot runs"
    return f"{address} is free"


def _encryption(settings: Settings) -> str:
    if settings.agent_url.startswith("wss:"):
        return "agents connect encrypted"
    if urlsplit(settings.agent_url).hostname in ("127.0.0.1", "::1", "localhost"):
        return "agents on this machine only, unencrypted"
    if not settings.allow_unencrypted:
        raise _Wrong("TWINROOT_AGENT_URL is ws:// beyond loopback: use wss://, or set TWINROOT_ALLOW_UNENCRYPTED=1")
    return "agents connect UNENCRYPTED, as TWINROOT_ALLOW_UNENCRYPTED says"


def _secret(settings: Settings) -> str:
    if len(settings.secret_key) < _SECRET_CHARS:
        raise _Wrong(f"TWINROOT_SECRET_KEY has fewer than {_SECRET_CHARS} characters: it can be guessed")
    db = open_database(settings.database_url)
    try:
        count = server_keys.check_sealed(db, settings)
    except SQLAlchemyError as error:
        raise _Wrong("the database cannot say") from error
    finally:
        db.close()
    return (
        f"opens {count} server key{'s' if count != 1 else ''}"
        if count
        else "no server key yet: the first start makes it"
    )


def _vendor() -> str:
    if not has_vendor():
        raise _Wrong("static/vendor is not there or not whole: run scripts/vendor")
    return "present"
