"""Agents of other minor versions at this gateway: what the golden sets hold is understood and stored.

Two minors older: frames with only what the first minor demands. Newer: fields that nobody here has heard of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.gateway.server import GatewayThread
from app.store.database import Database
from tests.gateway import kit
from wire.messages import MINOR, Ack, Challenge, Welcome

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"
SAID_WHEN_OPEN = ("status", "event", "report", "lease-request", "lease-return", "heartbeat")


def frames_of(name: str) -> dict[str, dict[str, Any]]:
    """Type -> message as a node of that version says it."""
    each = json.loads((GOLDEN / f"{name}.json").read_text())
    return {message["type"]: message for message in (json.loads(one["frame"]) for one in each if one["from"] == "node")}


@pytest.mark.parametrize(("name", "minor"), [("set-older", 0), ("set-newer", MINOR)])
def test_an_agent_of_another_minor_is_welcomed_heard_and_acknowledged(
    gateway: GatewayThread, database: Database, settings: Settings, name: str, minor: int
) -> None:
    key = kit.new_node(database, settings)
    said = frames_of(name)

    async def scenario() -> None:
        connection, end = await kit.dial(gateway), kit.end_of(key)
        own = {word: value for word, value in json.loads(kit.hello_of(end, key)[0]).items() if word != "minor"}
        if "server_fingerprint" not in said["hello"]:
            del own["server_fingerprint"]
        await connection.send(json.dumps(said["hello"] | own))
        challenge, proof = end.receive(await connection.recv())
        assert isinstance(challenge, Challenge)
        assert challenge.minor == minor
        await connection.send(json.dumps(said["proof"] | json.loads(proof[0])))
        welcome, _ = end.receive(await connection.recv())
        assert isinstance(welcome, Welcome)
        node = kit.Node(connection, end, welcome)
        assert welcome.minor == minor
        for kind in SAID_WHEN_OPEN:
            await connection.send(json.dumps(said[kind]))
        acked = await node.hear(Ack, lambda ack: ack.seq >= said["report"]["seq"])
        assert acked.seq == said["report"]["seq"]
        await kit.until(lambda: kit.node_row(database, key.node_id).booted_slot == "rootfs.0", "the status is stored")
        assert [event.kind for event in kit.event_rows(database, key.node_id)][:2] == ["online", "boot"]
        await node.leave()

    kit.run(scenario())
