"""Who gets in, and with which close code everybody else is sent away."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.config import Address, Settings
from app.gateway.server import GatewayThread
from app.services import joining
from app.services.server_keys import current_key
from app.store.database import Database
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import NOW, OPERATOR
from wire.close import CloseCode
from wire.codec import encode
from wire.conversation import JoinEnd
from wire.identity import fingerprint, new_nonce, new_private_key, sign
from wire.messages import Desired, Heartbeat, Hello, Joined, OsFacts, Part, Placement, Proof, Refused


def test_a_node_is_welcomed_and_seen_online(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings, name="web-03")

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        assert (node.welcome.name, node.welcome.admission, node.welcome.conflict) == ("web-03", "admitted", False)
        assert await node.hear(Desired) == Desired(order=node.heard[-1].order)
        row = kit.node_row(database, key.node_id)
        assert (row.connection, row.remote) == ("online", "127.0.0.1")
        assert [event.kind for event in kit.event_rows(database, key.node_id)] == ["online"]
        await node.leave()

    kit.run(scenario())


def test_a_pending_node_is_heard_and_told_nothing(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings, admission="pending", admitted_at=None)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.status(), kit.event(1))
        await kit.until(lambda: kit.node_row(database, key.node_id).version == "1.0", "status stored")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):  # three sweeps
                await node.hear(Desired)
        await node.leave()

    kit.run(scenario())


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"admission": "retired"}, CloseCode.RETIRED),
        ({"admission": "retired", "replaced_by_id": "node_other"}, CloseCode.REVOKED),
    ],
)
def test_a_retired_or_replaced_node_is_refused(
    gateway: GatewayThread, database: Database, settings: Settings, given: dict[str, str], code: CloseCode
) -> None:
    key = kit.new_node(database, settings, **given)
    assert kit.run(_refused(gateway, key)) == code


def test_an_unknown_node_is_refused(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = replace(kit.new_node(database, settings), node_id="node_nobody")
    assert kit.run(_refused(gateway, key)) == CloseCode.UNKNOWN_NODE


async def _refused(gateway: GatewayThread, key: kit.Key) -> int:
    connection, end = await kit.dial(gateway), kit.end_of(key)
    await kit.send_all(connection, kit.hello_of(end, key))
    message, _ = end.receive(await connection.recv())
    assert isinstance(message, Refused)
    return await kit.close_code(connection)


def test_a_forged_proof_is_refused(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = replace(kit.new_node(database, settings), private_key=new_private_key())

    async def scenario() -> None:
        connection = await kit.dial(gateway)
        await kit.greet(connection, kit.end_of(key), key)
        assert await kit.close_code(connection) == CloseCode.BAD_PROOF

    kit.run(scenario())
    assert kit.node_row(database, key.node_id).connection == "never"


def test_a_recorded_opening_cannot_be_replayed(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        recorded: list[str] = []
        connection, end = await kit.dial(gateway), kit.end_of(key)
        recorded += kit.hello_of(end, key)
        await kit.send_all(connection, recorded)
        _, proof = end.receive(await connection.recv())
        await kit.send_all(connection, proof)
        await connection.recv()
        await connection.close()

        replayed = await kit.dial(gateway)
        await kit.send_all(replayed, recorded)
        await replayed.recv()
        await kit.send_all(replayed, proof)
        assert await kit.close_code(replayed) == CloseCode.BAD_PROOF

    kit.run(scenario())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", CloseCode.MALFORMED),
        ('{"type":"nonsense"}', CloseCode.MALFORMED),
        (b"\xff\xfe", CloseCode.MALFORMED),
        (encode(Heartbeat())[0], CloseCode.OUT_OF_ORDER),
        (encode(Proof(signature=sign(new_private_key(), b"x")))[0], CloseCode.OUT_OF_ORDER),
        ("x" * (256 * 1024 + 1), CloseCode.TOO_BIG),
    ],
)
def test_a_bad_first_frame_gets_its_code_and_disturbs_nobody(
    gateway: GatewayThread, database: Database, settings: Settings, frame: str | bytes, code: CloseCode
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        neighbour = await kit.connected(gateway, key)
        connection = await kit.dial(gateway)
        await connection.send(frame)
        assert await kit.close_code(connection) == code
        await neighbour.say(kit.event(1))
        await kit.until(lambda: kit.event_rows(database, key.node_id, "check-failed"), "the neighbour is heard")
        await neighbour.leave()

    kit.run(scenario())


def test_who_says_nothing_is_sent_away(start: Start) -> None:
    gateway = start(opening_s=0.3)

    async def scenario() -> None:
        assert await kit.close_code(await kit.dial(gateway)) == CloseCode.TIMEOUT

    kit.run(scenario())


def test_another_subprotocol_is_unsupported(gateway: GatewayThread) -> None:
    async def scenario() -> None:
        async with connect(kit.url_of(gateway), subprotocols=["twinroot.v9"], proxy=None) as connection:
            assert await kit.close_code(connection) == CloseCode.UNSUPPORTED

    kit.run(scenario())


@pytest.mark.parametrize("limit", ["unproved", "unproved_per_remote"])
def test_openings_are_bounded_in_all_and_from_one_address(
    start: Start, database: Database, settings: Settings, limit: str
) -> None:
    gateway = start(**{limit: 2})
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        waiting = [await kit.dial(gateway) for _ in range(2)]
        # Their handlers run once they were read from: a hello has been answered.
        for connection in waiting:
            await kit.send_all(connection, kit.hello_of(kit.end_of(key), key))
            await connection.recv()
        assert await kit.close_code(await kit.dial(gateway)) == CloseCode.TOO_MANY
        for connection in waiting:
            await connection.close()

        async def room() -> bool:
            node = await kit.connected(gateway, key)
            await node.leave()
            return True

        assert await room()

    kit.run(scenario())


def test_a_machine_joins_and_comes_back_as_a_node(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    server_key = current_key(database, settings, NOW).public_key
    _, token = joining.create_token(database, OPERATOR, expires_at=time.time() + 600, reason="test", now=time.time())
    private = new_private_key()

    async def scenario() -> None:
        joined = await _join(gateway, private, fingerprint(server_key), token)
        assert isinstance(joined, Joined)
        node = await kit.connected(gateway, kit.Key(joined.node_id, private, server_key, "machine-j", "sha256:1"))
        assert node.welcome.name == "host-j"
        await node.leave()
        refused = await _join(gateway, new_private_key(), fingerprint(server_key), "trj_nonsense")
        assert isinstance(refused, Refused)
        assert refused.code == "unknown-token"

    kit.run(scenario())


async def _join(gateway: GatewayThread, private: str, print_: str, token: str) -> object:
    connection, end = await kit.dial(gateway), JoinEnd(private, print_)
    await kit.send_all(connection, end.hello(agent_version="0.1.0"))
    end.receive(await connection.recv())
    frames = end.join(token, "host-j", "machine-j", "sha256:1", OsFacts(id="demo", arch="amd64"), {})
    await kit.send_all(connection, frames)
    answer, _ = end.receive(await connection.recv())
    code = await kit.close_code(connection)
    assert code == (CloseCode.JOIN_REFUSED if isinstance(answer, Refused) else 1000)
    return answer


def test_a_whole_status_in_parts(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)
    many = [kit.container(f"c{number:05d}", image="i" * 200) for number in range(1500)]

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        message = kit.status(placement=Placement(known=True, engine="podman", containers=many))
        assert len(encode(message)) > 1
        await node.say(message)
        await kit.until(lambda: kit.node_row(database, key.node_id).containers_running == 1500, "all containers")
        assert len(kit.container_rows(database, key.node_id)) == 1500
        await node.leave()

    kit.run(scenario())


def test_parts_out_of_order_close_only_that_connection(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    bad, good = kit.new_node(database, settings), kit.new_node(database, settings)

    async def scenario() -> None:
        first, second = await kit.gathered(kit.connected(gateway, bad), kit.connected(gateway, good))
        await first.say(Part(index=1, count=3, text="x"))
        assert await first.closed() == CloseCode.OUT_OF_ORDER
        await second.say(kit.event(1))
        await kit.until(lambda: kit.event_rows(database, good.node_id, "check-failed"), "the neighbour is heard")
        await second.leave()

    kit.run(scenario())


def test_beyond_loopback_only_with_the_flag(start: Start, database: Database, settings: Settings) -> None:
    own = _own_address()
    if own is None:
        pytest.skip("this machine has no address but loopback")
    key = kit.new_node(database, settings)
    everywhere = replace(settings, gateway=Address("0.0.0.0", 0))

    async def scenario() -> None:
        closed = start(of=everywhere)
        assert closed.address is not None
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{own}:{closed.address.port}/agent", proxy=None)
        assert refused.value.response.status_code == 403
        opened = start(of=replace(everywhere, allow_unencrypted=True))
        assert opened.address is not None
        opened.address = Address(own, opened.address.port)
        node = await kit.connected(opened, key)
        await node.leave()

    kit.run(scenario())


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; only asks for a route
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def test_a_node_id_that_is_no_id_is_malformed(gateway: GatewayThread) -> None:
    hello = Hello(
        node_id="x" * 500, nonce=new_nonce(), minor=1, agent_version="1", machine_id="m", hardware="h", boot_id="b"
    )

    async def scenario() -> None:
        connection = await kit.dial(gateway)
        await connection.send(encode(hello)[0])
        assert await kit.close_code(connection) == CloseCode.MALFORMED

    kit.run(scenario())
