"""What the history says is read by people: sentences with a capital, with who and what, without ids or codes."""

from __future__ import annotations

from tests.agent.stories import updated
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import HealthState, OperationKind


def texts(world: World) -> list[str]:
    return [event.text for event in world.events]


def test_an_update_names_what_and_who() -> None:
    assert texts(updated(joined())) == [
        "Booted slot a (1): the agent's first start on this node",
        "Wrote 2 to slot b and verified it",
        "Boots next: update to 2",
        "Booted slot b (2): update to 2, asked for by ada",
        "Confirmed slot b (2) as good",
        "2 stayed healthy through its soak of 60 s",
    ]


def test_a_version_that_fails_its_checks_says_so_and_where_it_went() -> None:
    world = joined()
    world.desire(1, operation("op"))
    world.run()
    world.grant()
    world.run()
    world.welcome()
    for _ in range(40):
        world.check(HealthState.UNHEALTHY)
        world.wait(60)
        world.run()
    kinds = dict(zip(world.kinds(), texts(world), strict=True))
    assert kinds["check-failed"].startswith("Unhealthy: ")
    assert kinds["going-back"].startswith("Goes back to slot a (1) by itself: ")
    assert kinds["boot"] == "Booted slot a (1): on the way back from 2 in slot b (update to 2, asked for by ada)"
    assert kinds["fell-back"].startswith("Fell back from 2 in slot b: ")


def test_every_text_of_a_roll_back_and_a_reboot_is_a_sentence_without_ids() -> None:
    world = updated(joined())
    for generation, kind in ((2, OperationKind.REBOOT), (3, OperationKind.RESCUE)):
        world.desire(generation, operation(f"op_{generation}", kind=kind))
        world.run()
    assert all(text[0].isupper() or text[0].isdigit() for text in texts(world))
    assert not [text for text in texts(world) if "op_" in text]
