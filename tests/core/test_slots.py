"""The table of phases, and where Roll back leads."""

from __future__ import annotations

import itertools

import pytest

from app.core.nodes import Previous
from app.core.slots import MOVES, IllegalMove, move, way_back_of
from tests.core.builders import booted, node, slot
from tests.server_kit import digest_of
from wire.messages import Activity, Phase, WayBack

ILLEGAL = {
    (Phase.CONFIRMING, Phase.IDLE),
    (Phase.CONFIRMING, Phase.STAGING),
    (Phase.CONFIRMING, Phase.STAGED),
    (Phase.CONFIRMING, Phase.DRAINING),
    (Phase.CONFIRMING, Phase.REBOOTING),
    (Phase.SOAKING, Phase.IDLE),
    (Phase.SOAKING, Phase.STAGING),
    (Phase.SOAKING, Phase.STAGED),
    (Phase.SOAKING, Phase.DRAINING),
    (Phase.SOAKING, Phase.REBOOTING),
    (Phase.ROLLING_BACK, Phase.IDLE),
    (Phase.ROLLING_BACK, Phase.STAGING),
    (Phase.ROLLING_BACK, Phase.STAGED),
    (Phase.ROLLING_BACK, Phase.DRAINING),
    (Phase.ROLLING_BACK, Phase.REBOOTING),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Phase, Phase)))
def test_every_pair_of_phases(before: Phase, after: Phase) -> None:
    if (before, after) in ILLEGAL:
        with pytest.raises(IllegalMove):
            move(before, after)
    else:
        assert move(before, after) is after


def test_every_phase_has_its_row() -> None:
    assert set(MOVES) == set(Phase)


def test_what_the_agent_says_comes_first() -> None:
    said = Activity(way_back=WayBack(slot="B", version="0.9", digest=digest_of("0.9")))
    found = way_back_of(node(slots=(booted(), slot("B", "0.9")), activity=said))
    assert found is not None and found.local and found.version == "0.9" and found.digest == digest_of("0.9")


def test_what_ran_before_in_the_passive_slot() -> None:
    before = Previous("0.9", digest_of("0.9"), "image_0.9")
    found = way_back_of(node(slots=(booted(), slot("B", "0.9")), previous=before))
    assert found is not None and found.local and found.image_id is None


def test_what_ran_before_and_is_overwritten_must_be_downloaded() -> None:
    before = Previous("0.9", digest_of("0.9"), "image_0.9")
    found = way_back_of(node(slots=(booted(), slot("B", "2.0")), previous=before))
    assert found is not None and not found.local and found.image_id == "image_0.9"


def test_what_ran_before_and_is_nowhere() -> None:
    before = Previous("0.9", digest_of("0.9"), None)
    assert way_back_of(node(slots=(booted(), slot("B", "2.0")), previous=before)) is None


@pytest.mark.parametrize(("good", "local"), [(True, True), (None, False), (False, False)])
def test_a_slot_of_unknown_contents_leads_back_where_it_was_confirmed(good: bool | None, local: bool) -> None:
    factory = slot("B", "0.9", digest=None, good=good)
    said = Activity(way_back=WayBack(slot="B", version="0.9"))
    for given in ({"activity": said}, {"previous": Previous("0.9", "", None)}):
        found = way_back_of(node(slots=(booted(), factory), **given))
        assert (found is not None) is local
        assert found is None or (found.local and found.digest is None and found.version == "0.9")


def test_a_bad_slot_is_no_way_back() -> None:
    said = Activity(way_back=WayBack(slot="B", version="0.9", digest=digest_of("0.9")))
    before = Previous("0.9", digest_of("0.9"), "image_0.9")
    bad = (booted(), slot("B", "0.9", good=False))
    assert way_back_of(node(slots=bad, activity=said)) is None
    downloaded = way_back_of(node(slots=bad, activity=said, previous=before))
    assert downloaded is not None and not downloaded.local


def test_a_staged_image_is_no_way_back() -> None:
    assert way_back_of(node(slots=(booted(), slot("B", "2.0", good=None)))) is None


def test_a_slot_that_was_good_when_the_node_joined() -> None:
    found = way_back_of(node(slots=(booted(), slot("B", "0.9", good=True))))
    assert found is not None and found.local and found.version == "0.9"


def test_an_empty_slot() -> None:
    assert way_back_of(node(slots=(booted(), slot("B", None, good=True)))) is None
    assert way_back_of(node(slots=(booted(),))) is None
