"""The processes of the control plane: each starts from Settings, stops cleanly on SIGTERM and SIGINT.

`up` runs all three parts in one process on SQLite; `web`, `gateway` and `conductor` run one each.
"""

from __future__ import annotations

import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

from app.conductor.loop import Conductor
from app.config import Address, Settings
from app.core.errors import Misconfigured
from app.factory import create_app
from app.gateway.server import GatewayThread
from app.services.channels import ensure_defaults
from app.services.fleet import ensure_fleet
from app.services.sign_in import create_login_link
from app.store.database import Database, open_database
from app.store.migrate import migrate
from app.web.http_server import make_server

log = structlog.get_logger(__name__)


def up(settings: Settings) -> None:
    """Web, gateway and conductor in this process; returns after a clean stop."""
    with _database(settings, migrated=True) as db:
        gateway = GatewayThread(db, settings)
        gateway.start()
        try:
            with _conductor(db):
                link = f"{settings.public_url}/sign-in/{create_login_link(db, 'operator', time.time())}"
                sys.stdout.write(f"Twinroot runs at {settings.public_url}\nSign in once, within 15 minutes: {link}\n")
                sys.stdout.flush()
                _serve_web(db, settings)
        finally:
            gateway.stop()


def web(settings: Settings) -> None:
    with _database(settings) as db:
        _serve_web(db, settings)


def gateway(settings: Settings) -> None:
    with _database(settings) as db:
        thread = GatewayThread(db, settings)
        stop = _stop_on_signal()
        thread.start()
        try:
            stop.wait()
        finally:
            thread.stop()


def conductor(settings: Settings) -> None:
    with _database(settings) as db:
        Conductor(db).run(_stop_on_signal())


def migrate_and_prepare(settings: Settings) -> None:
    """Bring the database to this version's tables, with the rows that the program assumes."""
    migrate(settings.database_url)
    db = open_database(settings.database_url)
    try:
        ensure_fleet(db, time.time())
        ensure_defaults(db, time.time())
    finally:
        db.close()


@contextmanager
def _database(settings: Settings, *, migrated: bool = False) -> Iterator[Database]:
    _allow_many_files()
    if migrated:
        migrate_and_prepare(settings)
    db = open_database(settings.database_url)
    try:
        yield db
    finally:
        db.close()


def _allow_many_files() -> None:
    """Each node and each browser page is an open file; most systems start a process with a thousand at most and let
    it have many more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _conductor(db: Database) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Conductor(db).run, args=(stop,), name="conductor")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _serve_web(db: Database, settings: Settings) -> None:
    address = settings.http
    try:
        server = make_server(create_app(db, settings), db, address)
    except OSError as error:
        raise _cannot_listen("TWINROOT_HTTP", address, error) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    try:
        server.run()  # returns on SystemExit, after the requests under way
    finally:
        server.close()


def _cannot_listen(variable: str, address: Address, error: OSError) -> Misconfigured:
    return Misconfigured(variable, f"cannot listen on {address}: {error.strerror}")


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
