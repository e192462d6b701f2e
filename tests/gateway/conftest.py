"""A real gateway on a port of its own, on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from app.config import Address, Settings
from app.gateway.limits import Limits
from app.gateway.server import GatewayThread
from app.store.database import Database

LIMITS = Limits(
    opening_s=10.0,
    probe_s=0.5,
    claim_again_s=0.05,
    write_every_s=0.02,
    beat_s=0.2,
    sweep_s=0.2,
    close_s=0.5,
    list_topics_every_s=0.2,
    node_topics_every_s=0.02,
    page_sweep_s=0.2,
    session_check_s=0.2,
    page_ping_s=0.2,
)
"""Everything happens soon."""

Start = Callable[..., GatewayThread]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The gateway takes any free port."""
    return replace(settings, gateway=Address("127.0.0.1", 0))


@pytest.fixture
def start(database: Database, settings: Settings) -> Iterator[Start]:
    """Starts gateways (on `db`, with changed limits); they are stopped at the end."""
    running: list[GatewayThread] = []

    def start(db: Database | None = None, of: Settings | None = None, **limits: float) -> GatewayThread:
        gateway = GatewayThread(db or database, of or settings, replace(LIMITS, **limits))
        gateway.start()
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def gateway(start: Start) -> GatewayThread:
    return start()
