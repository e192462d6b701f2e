"""The console as a browser meets it: web and gateway on a fleet of their own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from playwright.sync_api import Page, expect
from sqlalchemy import select
from werkzeug.serving import make_server

from app.config import Address, Settings
from app.factory import create_app
from app.gateway.server import GatewayThread
from app.services import nodes
from app.services.fleet import ensure_fleet
from app.services.sign_in import create_login_link
from app.store import schema
from app.store.database import Database, open_database
from app.store.migrate import migrate
from tests import server_kit as kit
from tests.web.seed import seed


@dataclass
class Running:
    db: Database
    settings: Settings
    gateway: GatewayThread | None

    @property
    def url(self) -> str:
        return self.settings.public_url

    def link(self) -> str:
        return f"{self.url}/sign-in/{create_login_link(self.db, 'mb', time.time())}"

    def stop_gateway(self) -> None:
        if self.gateway is not None:
            self.gateway.stop()
            self.gateway = None

    def node(self, name: str) -> str:
        with self.db.read() as conn:
            return conn.execute(select(schema.nodes.c.id).where(schema.nodes.c.name == name)).scalar_one()

    def rename(self, id: str, name: str) -> None:
        nodes.rename(self.db, kit.OPERATOR, id, name, "test", time.time())


def _whole(app: WSGIApplication) -> WSGIApplication:
    """Answers in one piece: a browser that goes away in the middle of a file leaves no open file behind."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = app(environ, start_response)
        try:
            return [b"".join(given)]
        finally:
            if hasattr(given, "close"):
                given.close()

    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path, count: int) -> Iterator[Running]:
    """Web and gateway on a SQLite fleet of `count` nodes."""
    url = f"sqlite:///{folder / 'twinroot.db'}"
    migrate(url)
    db = open_database(url)
    ensure_fleet(db, time.time())
    if count:
        seed(db, count, time.time())
    web, gate = free_port(), free_port()
    settings = Settings(
        database_url=url,
        data_dir=folder,
        http=Address("127.0.0.1", web),
        gateway=Address("127.0.0.1", gate),
        public_url=f"http://127.0.0.1:{web}",
        agent_url=f"ws://127.0.0.1:{gate}/agent",
        live_url=f"ws://127.0.0.1:{gate}/live",
        secret_key="a secret of the tests",
        allow_unencrypted=False,
    )
    made = Running(db, settings, GatewayThread(db, settings))
    assert made.gateway is not None
    made.gateway.start()
    server = make_server("127.0.0.1", web, _whole(create_app(db, settings)), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.stop_gateway()
        server.shutdown()
        thread.join(10)
        server.server_close()
        db.close()


def live(page: Page) -> Page:
    expect(page.locator("#live-state")).to_have_attribute("data-state", "live")
    return page
