"""Servers in processes of their own, and the nodes that connect to them, for the benchmarks of the gateway."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert
from websockets.asyncio.client import ClientConnection, connect

from app.config import Address, Settings
from app.gateway.server import loop_factory
from app.services.fleet import ensure_fleet
from app.services.server_keys import current_key
from app.store import schema
from app.store.database import open_database
from app.store.migrate import migrate
from wire.conversation import NodeEnd
from wire.identity import new_private_key, public_key
from wire.messages import (
    PROTOCOL,
    Activity,
    AgentFacts,
    Boot,
    Check,
    CheckState,
    Container,
    Facts,
    Health,
    HealthState,
    OsFacts,
    Phase,
    Placement,
    Slot,
    Status,
)

_START_S = 30.0


def settings_in(folder: Path, database_url: str = "") -> Settings:
    """SQLite in the folder unless another database is named."""
    return Settings(
        database_url=database_url or f"sqlite:///{folder / 'twinroot.db'}",
        data_dir=folder,
        http=Address("127.0.0.1", 8080),
        gateway=Address("127.0.0.1", 0),
        public_url="http://127.0.0.1:8080",
        agent_url="ws://127.0.0.1:8090/agent",
        live_url="ws://127.0.0.1:8090/live",
        secret_key="bench",
        allow_unencrypted=False,
    )


@dataclass(frozen=True)
class World:
    """A database with nodes that have joined. Fields: keys (node id, private key), server_key (public)."""

    folder: Path
    database_url: str
    keys: Sequence[tuple[str, str]]
    server_key: str


@contextmanager
def world(nodes: int, database_url: str = "") -> Iterator[World]:
    """SQLite in a folder of its own, or the empty database that is named."""
    with tempfile.TemporaryDirectory(prefix="twinroot-bench-") as name:
        folder = Path(name)
        settings = settings_in(folder, database_url)
        migrate(settings.database_url)
        db = open_database(settings.database_url)
        now = time.time()
        ensure_fleet(db, now)
        keys = [(f"node_{number:026d}", new_private_key()) for number in range(nodes)]
        with db.write() as change:
            change.conn.execute(insert(schema.nodes), [_row(node_id, private, now) for node_id, private in keys])
        server_key = current_key(db, settings, now).public_key
        db.close()
        yield World(folder, settings.database_url, keys, server_key)


def _row(node_id: str, private: str, now: float) -> dict[str, object]:
    return {
        "id": node_id,
        "name": node_id[-6:],
        "public_key": public_key(private),
        "machine_id": f"machine-{node_id}",
        "hardware": f"sha256:{node_id}",
        "admission": "admitted",
        "labels": {"zone": "abcd"[int(node_id[-6:]) % 4]},
        "joined_at": now,
        "slots": [],
        "health": {},
        "activity": {},
    }


@dataclass(frozen=True)
class Server:
    pid: int
    port: int

    def rss_kib(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1])
        raise RuntimeError("the kernel does not tell the resident size")

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def server(kind: str, folder: Path) -> Iterator[Server]:
    """`gateway` or `bare` (see bench.gateway_servers) as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.gateway_servers", kind, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("listening "):
            raise RuntimeError(f"the {kind} server did not start")
        yield Server(process.pid, int(line.split()[1]))
    finally:
        process.stdin.close()  # its sign to stop
        process.wait(timeout=_START_S)
        process.stdout.close()


async def dial(port: int) -> ClientConnection:
    return await connect(
        f"ws://127.0.0.1:{port}/agent", subprotocols=[PROTOCOL], compression=None, ping_interval=None, proxy=None
    )


async def open_node(port: int, node_id: str, private: str, server_key: str) -> tuple[ClientConnection, NodeEnd]:
    """A connection that was welcomed."""
    connection, end = await dial(port), NodeEnd(node_id, private, server_key)
    frames = end.hello(
        agent_version="0.1.0",
        machine_id=f"machine-{node_id}",
        hardware=f"sha256:{node_id}",
        boot_id="2f0c8a4e-52be-4ad0-9a5e-1f2a3b4c5d6e",
    )
    for _ in range(2):  # challenge, welcome
        for frame in frames:
            await connection.send(frame)
        _, frames = end.receive(await connection.recv())
    return connection, end


async def close_all(connections: Sequence[ClientConnection]) -> None:
    await asyncio.gather(*(connection.close() for connection in connections))


def status(progress: float) -> Status:
    """About one KiB, as a node sends it while it stages an image."""
    return Status(
        facts=Facts(
            agent=AgentFacts(version="0.1.0"),
            os=OsFacts(
                id="demo", name="Demo OS", version="4012.1.0", kernel="6.1.0-40-amd64", arch="amd64", driver="files"
            ),
            boot=Boot(id="2f0c8a4e-52be-4ad0-9a5e-1f2a3b4c5d6e", at=1.75e9),
            hostname="web-03.example",
        ),
        slots=[
            Slot(name="A", booted=True, next_boot=True, version="4012.1.0", digest="sha256:" + "a" * 64, good=True),
            Slot(name="B", booted=False, next_boot=False, version="4011.0.0", digest="sha256:" + "b" * 64, good=True),
        ],
        health=Health(
            state=HealthState.HEALTHY, checks=[Check(name="disk", state=CheckState.PASSED, text="/ 41 % used")]
        ),
        placement=Placement(
            known=True,
            engine="podman",
            containers=[
                Container(id="c" * 64, name="web-1", image="registry.example/web:1.4", service="web", scope="shop")
            ],
        ),
        activity=Activity(phase=Phase.STAGING, target="4152.2.0", progress=progress),
    )


def many_files() -> None:
    """Allow as many sockets as the machine lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_on_fast_loop(work: object) -> object:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)  # type: ignore[arg-type]
