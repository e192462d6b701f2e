"""When much of a failure domain is lost at once, and when it is just nodes that fail."""

from __future__ import annotations

import pytest

from app.core.domains import FLEET, GRACE_S, Gone, losses
from tests.server_kit import NOW

WITHIN_S = 105.0
A = ("zone", "a")
SIZES = {FLEET: 100, A: 6, ("zone", "b"): 94}


def gone(number: int, seconds_ago: float = 10.0, apart_s: float = 1.0, domain: tuple[str, str] = A) -> list[Gone]:
    return [Gone(f"{domain[1]}{place}", (domain,), NOW - seconds_ago - place * apart_s) for place in range(number)]


def test_half_of_a_zone_within_a_minute() -> None:
    (loss,) = losses(SIZES, gone(3), NOW, WITHIN_S)
    assert (loss.label, loss.value, loss.lost, loss.of) == ("zone", "a", 3, 6)
    assert loss.text == "zone a lost 3 of 6 nodes at once"
    assert loss.until == NOW - 10 + GRACE_S
    assert loss.nodes == {"a0", "a1", "a2"}


@pytest.mark.parametrize(
    "away",
    [
        gone(2),  # too few to be a domain
        gone(3, apart_s=WITHIN_S),  # one after the other
        gone(40, domain=("zone", "b")),  # less than half
        gone(6, seconds_ago=GRACE_S),  # its grace is over
        [],
    ],
)
def test_what_is_no_loss_of_a_domain(away: list[Gone]) -> None:
    assert losses(SIZES, away, NOW, WITHIN_S) == []


def test_the_whole_fleet_is_a_domain() -> None:
    found = losses(SIZES, gone(50, domain=("zone", "b")), NOW, WITHIN_S)
    assert [loss.text for loss in found] == [
        "the fleet lost 50 of 100 nodes at once",
        "zone b lost 50 of 94 nodes at once",
    ]


def test_who_was_away_before_belongs_to_the_domain_and_not_to_its_loss() -> None:
    before = [Gone("a9", (A,), NOW - 5000)]
    (loss,) = losses(SIZES, gone(3) + before, NOW, WITHIN_S)
    assert loss.lost == 3 and "a9" in loss.nodes
