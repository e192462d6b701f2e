"""The control plane's own processes (`twinroot up`, `web`, `gateway`) on a benchmark's database."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.config import Address
from app.services.sign_in import create_login_link, use_login_link
from app.store.database import open_database
from bench.gateway_world import Server, World

_START_S = 30.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Console:
    """Where the processes listen, and the secret of a signed-in session."""

    world: World
    http: Address
    gateway: Address
    secret: str

    @property
    def origin(self) -> str:
        return f"http://{self.http}"


def console(built: World) -> Console:
    db = open_database(built.database_url)
    try:
        secret = use_login_link(db, create_login_link(db, "bench", time.time()), time.time())
    finally:
        db.close()
    return Console(built, Address("127.0.0.1", _free_port()), Address("127.0.0.1", _free_port()), secret)


@contextmanager
def running(site: Console, command: str) -> Iterator[Server]:
    """`up`, `web` or `gateway`, from when it answers until it has stopped."""
    address = site.gateway if command == "gateway" else site.http
    said = site.world.folder / f"{command}.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", command],
            env=os.environ | _environment(site),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _await(address, process, said.read_text)
        yield Server(process.pid, address.port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=_START_S)


def _environment(site: Console) -> dict[str, str]:
    return {
        "TWINROOT_DATA_DIR": str(site.world.folder),
        "TWINROOT_DATABASE_URL": site.world.database_url,
        "TWINROOT_SECRET_KEY": "bench",
        "TWINROOT_HTTP": str(site.http),
        "TWINROOT_GATEWAY": str(site.gateway),
    }


def _await(address: Address, process: subprocess.Popen[bytes], said: Callable[[], str]) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(_LOOK_EVERY_S)
        finally:
            connection.close()
    raise RuntimeError(f"it did not start: {said()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
