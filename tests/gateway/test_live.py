"""Browser pages: who may listen, what they hear, how often, and when they are sent away."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus

from app.config import Settings
from app.gateway.doors import session_secret
from app.gateway.server import GatewayThread
from app.services.sign_in import SESSION_COOKIE, create_login_link, use_login_link
from app.store import schema
from app.store.database import Database
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import revisions


def signed_in(db: Database) -> str:
    return use_login_link(db, create_login_link(db, "mb", time.time()), time.time())


async def page(gateway: GatewayThread, secret: str | None, origin: str | None) -> ClientConnection:
    headers = {} if secret is None else {"Cookie": f"theme=dark; {SESSION_COOKIE}={secret}"}
    return await connect(
        kit.url_of(gateway, "/live"), origin=origin, additional_headers=headers, compression=None, proxy=None
    )


async def wish(connection: ClientConnection, *topics: str) -> dict[str, str]:
    await connection.send(json.dumps({"topics": topics}))
    return await told(connection)


async def told(connection: ClientConnection) -> dict[str, str]:
    async with asyncio.timeout(kit.DEADLINE_S):
        frame: dict[str, Any] = json.loads(await connection.recv())
    assert frame.keys() == {"topics"}
    topics: dict[str, str] = frame["topics"]
    return topics


def touch(db: Database, *topics: str) -> None:
    with db.write() as change:
        change.touch(*topics)


def test_a_page_hears_the_revisions_and_what_changes(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    secret = signed_in(database)
    touch(database, "fleet", "fleet", "node:a")

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        now = await wish(connection, "fleet", "node:a", "images")
        assert now == {"fleet": str(revisions(database)["fleet"]), "node:a": "1", "images": "0"}
        await asyncio.to_thread(touch, database, "node:a", "node:b", "nodes")
        assert await told(connection) == {"node:a": "2"}
        await asyncio.to_thread(touch, database, "fleet")
        assert await told(connection) == {"fleet": str(int(now["fleet"]) + 1)}
        # a new wish replaces the old one
        assert await wish(connection, "node:b") == {"node:b": "1"}
        await asyncio.to_thread(touch, database, "node:a", "fleet")
        await asyncio.to_thread(touch, database, "node:b")
        assert await told(connection) == {"node:b": "2"}
        await connection.close()

    kit.run(scenario())


def test_a_nodes_change_reaches_a_page(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    secret, key = signed_in(database), kit.new_node(database, settings)

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        await wish(connection, f"node:{key.node_id}")
        node = await kit.connected(gateway, key)
        await node.say(kit.status())
        await kit.until(lambda: kit.node_row(database, key.node_id).version == "1.0", "stored")
        newest = str(revisions(database)[f"node:{key.node_id}"])
        while await told(connection) != {f"node:{key.node_id}": newest}:
            pass  # coming online may have been told on its own
        await kit.gathered(connection.close(), node.leave())

    kit.run(scenario())


def test_changes_are_coalesced_and_lists_wait_their_turn(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(node_topics_every_s=0.1, list_topics_every_s=1.0)
    secret = signed_in(database)

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        await wish(connection, "nodes", "node:a")
        began = time.monotonic()
        heard: list[dict[str, str]] = []

        async def listen() -> None:
            while heard[-1:] == [] or not {"node:a", "nodes"} <= {k for h in heard for k, v in h.items() if v == "100"}:
                heard.append(await told(connection))

        listening = asyncio.create_task(listen())

        def many() -> None:
            for _ in range(100):
                touch(database, "nodes", "node:a")

        await asyncio.to_thread(many)
        await listening
        took = time.monotonic() - began
        assert sum("node:a" in frame for frame in heard) <= took / 0.1 + 2
        assert sum("nodes" in frame for frame in heard) <= took / 1.0 + 2
        await connection.close()

    kit.run(scenario())


def test_a_lost_nudge_is_found(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    secret = signed_in(database)

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        await wish(connection, "images")
        with database.engine.begin() as conn:  # past `Database.write`: nobody is nudged
            conn.execute(text("INSERT INTO revisions (topic, revision) VALUES ('images', 9)"))
        assert await told(connection) == {"images": "9"}
        await connection.close()

    kit.run(scenario())


@pytest.mark.parametrize(
    ("origin", "signed", "status"),
    [
        ("http://evil.example", True, 403),
        ("http://127.0.0.1:8080.evil.example", True, 403),
        ("http://127.0.0.1", True, 403),
        ("null", True, 403),
        (None, True, 403),
        ("http://127.0.0.1:8080", False, 401),
    ],
)
def test_foreign_origins_and_strangers_stay_outside(
    gateway: GatewayThread, database: Database, origin: str | None, signed: bool, status: int
) -> None:
    secret = signed_in(database) if signed else None

    async def scenario() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await page(gateway, secret, origin)
        assert refused.value.response.status_code == status

    kit.run(scenario())


@pytest.mark.parametrize("secret", ["", "forged", "x" * 4000])
def test_a_forged_or_ended_session_stays_outside(
    gateway: GatewayThread, database: Database, settings: Settings, secret: str
) -> None:
    signed_in(database)

    async def scenario() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await page(gateway, secret, settings.public_url)
        assert refused.value.response.status_code == 401

    kit.run(scenario())


def test_an_expired_session_closes_the_page(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    ending, staying = signed_in(database), signed_in(database)

    async def scenario() -> None:
        first = await page(gateway, ending, settings.public_url)
        second = await page(gateway, staying, settings.public_url)
        with database.write() as change:
            oldest = change.conn.execute(schema.sessions.select().order_by(schema.sessions.c.created_at)).first()
            assert oldest is not None
            change.conn.execute(
                schema.sessions.update()
                .where(schema.sessions.c.secret_hash == oldest.secret_hash)
                .values(expires_at=time.time() - 1)
            )
        assert await kit.close_code(first) == 4401
        assert "fleet" in await wish(second, "fleet")
        await second.close()

    kit.run(scenario())


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        '{"topics": "fleet"}',
        '{"topics": ["desired:a"]}',
        '{"topics": ["*"]}',
        json.dumps({"topics": [f"node:{number}" for number in range(51)]}),
        json.dumps({"topics": ["node:" + "x" * 500]}),
        json.dumps({"topics": ["node:\0"]}),
        b"\xff",
    ],
)
def test_a_wish_that_is_none_closes_the_page(
    gateway: GatewayThread, database: Database, settings: Settings, frame: str | bytes
) -> None:
    secret = signed_in(database)

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        await connection.send(frame)
        assert await kit.close_code(connection) == 4400

    kit.run(scenario())


def test_pages_are_bounded(start: Start, database: Database, settings: Settings) -> None:
    gateway = start(pages=1)
    secret = signed_in(database)

    async def scenario() -> None:
        first = await page(gateway, secret, settings.public_url)
        await wish(first, "fleet")
        assert await kit.close_code(await page(gateway, secret, settings.public_url)) == 1013
        await first.close()

    kit.run(scenario())


def test_a_page_that_does_not_read_is_let_go(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    secret = signed_in(database)

    async def gone() -> bool:
        return "twinroot_gateway_pages 0.0" in (await kit.http_get(gateway, "/metrics"))[1]

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        await wish(connection, "fleet")
        connection.transport.pause_reading()  # no answer to pings any more
        async with asyncio.timeout(kit.DEADLINE_S):
            while not await gone():
                await asyncio.sleep(0.05)
        connection.transport.abort()

    kit.run(scenario())


def test_a_restart_is_said_to_pages(start: Start, database: Database, settings: Settings) -> None:
    gateway = start()
    secret = signed_in(database)

    async def scenario() -> None:
        connection = await page(gateway, secret, settings.public_url)
        closing = asyncio.create_task(kit.close_code(connection))
        await asyncio.to_thread(gateway.stop)
        assert await closing == 1012

    kit.run(scenario())


@pytest.mark.parametrize(
    ("cookie", "secret"),
    [
        (f"{SESSION_COOKIE}=abc", "abc"),
        (f"a=1; {SESSION_COOKIE}=abc; b=2", "abc"),
        (f'bad,cookie=[1]; {SESSION_COOKIE}="abc"', "abc"),
        ("other=1", ""),
        ("", ""),
    ],
)
def test_the_session_is_found_among_other_cookies(cookie: str, secret: str) -> None:
    assert session_secret(Headers(Cookie=cookie)) == secret
