from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.drivers.rauc_machine import RaucMachine, missing


@pytest.fixture
def rauc(tmp_path: Path) -> Iterator[RaucMachine]:
    """A machine with the real RAUC, running its slot A."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with RaucMachine(tmp_path / "machine") as machine:
        machine.power_on()
        yield machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "rauc" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.root)
