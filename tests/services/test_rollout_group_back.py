"""Back is back: what undoes a way back leads forth, and is composed; a group goes back once, its updates with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount
from app.core.rollouts import RolloutState
from app.services import rollouts as service
from app.services.rollout_reverse import reverse
from app.store import failed_versions
from app.store.database import Database
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3), failure_limit=Amount(count=3))


def test_a_way_back_is_not_turned_round(database: Database, settings: Settings) -> None:
    """It would lead forth past canaries, freezes and what failed here; while it is under way, and afterwards."""
    world = World(database, settings, 3, WIDE)
    world.nodes["n0"].mood = Mood.SICK
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    back_id = reverse(database, OPERATOR, rollout_id, "n0 is ill", world.now)
    world.run_until(lambda: "1.0" in world.versions().values())
    for undo in (
        lambda: service.roll_back(database, OPERATOR, back_id, "oops", world.now),
        lambda: reverse(database, OPERATOR, back_id, "oops", world.now, wave=1),
    ):
        with pytest.raises(NotPossible, match=r"Compose a rollout to 2\.0 instead"):
            undo()
    world.run(back_id, until=RolloutState.SUCCEEDED)
    with pytest.raises(NotPossible, match=r"Compose a rollout to 2\.0 instead"):
        reverse(database, OPERATOR, back_id, "oops", world.now)
    for _ in range(3):
        world.tick()
    assert set(world.versions().values()) == {"1.0"}
    with database.read() as conn:
        failed = {one.digest: one.cleared_at for one in failed_versions.of_node(conn, world.nodes["n0"].id)}
    assert failed == {digest_of("2.0"): None}
