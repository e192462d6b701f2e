"""Gateways of other minor versions: what they say in the golden sets is heard by this agent's link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.agent.gateway import Gateway, until
from tests.agent.test_link import linked, play
from wire.messages import Ack, Desired, LeaseGrant, LeaseWait, Status

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"
SAID_WHEN_OPEN = ("welcome", "desired", "lease-grant", "lease-wait", "ask", "ack")


def frames_of(name: str) -> dict[str, dict[str, Any]]:
    """Type -> message as a gateway of that version says it."""
    each = json.loads((GOLDEN / f"{name}.json").read_text())
    return {made["type"]: made for made in (json.loads(one["frame"]) for one in each if one["from"] == "server")}


@pytest.mark.parametrize("name", ["set-older", "set-newer"])
def test_a_gateway_of_another_minor_is_understood(name: str) -> None:
    async def story(gateway: Gateway) -> None:
        said = frames_of(name)
        async with linked(gateway, gateway.identity(said["welcome"]["node_id"])) as node:
            await until(lambda: gateway.got(Status))
            for kind in SAID_WHEN_OPEN:
                await gateway.say_raw(json.dumps(said[kind]))
            await until(lambda: any(isinstance(heard, Ack) for heard in node.heard))
            kinds = [type(heard) for heard in node.heard]
            assert [kind for kind in kinds if kind in (Desired, LeaseGrant, LeaseWait, Ack)] == [
                Desired,
                LeaseGrant,
                LeaseWait,
                Ack,
            ]
            await until(lambda: len([status for status in gateway.got(Status) if status.whole]) == 2)
            assert gateway.connections == 1

    play(story)
