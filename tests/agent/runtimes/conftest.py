from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.podman_machine import PodmanMachine


@pytest.fixture(scope="session")
def engine_machine() -> Iterator[PodmanMachine]:
    """One real engine for all tests of this folder; each names its containers after itself."""
    reason = PodmanMachine.missing()
    if reason:
        pytest.skip(reason)
    with PodmanMachine() as machine:
        yield machine


@pytest.fixture
def podman(engine_machine: PodmanMachine) -> Iterator[PodmanMachine]:
    """The real engine, running and without containers."""
    yield engine_machine
    engine_machine.thaw_engine()
    engine_machine.podman("rm", "--all", "--force", "--time=0")


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="tr-sock-") as folder:
        yield Path(folder) / "engine.sock"
