"""The odd seeds of the simulation (see `seeds`)."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.seeds import run_half


def test_the_odd_seeds_hold_all_rules(record_property: Callable[[str, object], None]) -> None:
    record_property("ran", run_half(0))
