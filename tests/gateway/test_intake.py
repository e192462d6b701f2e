"""What nodes report: stored newest-wins, acknowledged after commit, each number once, one node's fault its own."""

from __future__ import annotations

import asyncio

from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.config import Settings
from app.gateway.server import GatewayThread
from app.store import schema
from app.store.database import Database, open_database
from tests.gateway import kit
from tests.gateway.conftest import Start
from tests.server_kit import add_operation, count_rows, digest_of, revisions
from wire.close import CloseCode
from wire.messages import (
    Ack,
    Activity,
    Health,
    HealthState,
    Heartbeat,
    OperationReport,
    Order,
    Phase,
    Placement,
    Result,
    Slot,
    Status,
    Trial,
)


def test_a_status_fills_the_derived_columns(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)
    two = [
        Slot(name="A", booted=False, next_boot=False, version="1.0", digest=digest_of("1.0")),
        Slot(name="B", booted=True, next_boot=True, version="2.0", digest=digest_of("2.0")),
    ]
    activity = Activity(phase=Phase.CONFIRMING, trial=Trial(confirmed=False, left_s=30.0))
    containers = [kit.container("web"), kit.container("db", state="exited")]

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        health = Health(state=HealthState.DEGRADED, reasons=["disk is nearly full"])
        placement = Placement(known=True, engine="podman", containers=containers)
        await node.say(kit.status(slots=two, activity=activity, health=health, placement=placement))
        await kit.until(lambda: row_is(database, key, "2.0"), "stored")
        row = kit.node_row(database, key.node_id)
        assert (row.version, row.booted_slot, row.booted_digest) == ("2.0", "B", digest_of("2.0"))
        assert (row.phase, row.on_trial, row.health_state) == ("confirming", True, "degraded")
        assert (row.os_id, row.arch, row.boot_id, row.driver) == ("demo", "amd64", "boot-a", "files")
        assert (row.placement_known, row.containers_running, row.engine) == (True, 1, "podman")
        assert row.evidence == "agent with slots and placement"
        assert row.health["reasons"] == ["disk is nearly full"]
        assert [slot["name"] for slot in row.slots] == ["A", "B"]
        await node.leave()

    kit.run(scenario())


def row_is(db: Database, key: kit.Key, version: str) -> bool:
    return bool(kit.node_row(db, key.node_id).version == version)


def test_only_what_differs_is_written(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.status())
        await kit.until(lambda: row_is(database, key, "1.0"), "stored")
        before = revisions(database)[f"node:{key.node_id}"]
        await node.say(*[kit.status()] * 20, *[Heartbeat()] * 5, kit.event(1))
        await node.hear(Ack)
        # The event has touched the node once; twenty equal states have not.
        assert revisions(database)[f"node:{key.node_id}"] == before + 1
        await node.leave()

    kit.run(scenario())


def test_containers_come_change_and_go(gateway: GatewayThread, database: Database, settings: Settings) -> None:
    key = kit.new_node(database, settings)

    def states() -> dict[str, str]:
        return {row.name: row.state for row in kit.container_rows(database, key.node_id)}

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        first = [kit.container("web"), kit.container("db")]
        await node.say(kit.status(placement=Placement(known=True, containers=first)))
        await kit.until(lambda: states() == {"web": "running", "db": "running"}, "two run")
        second = [kit.container("web", state="exited"), kit.container("cache")]
        await node.say(Status(placement=Placement(known=True, containers=second)))
        await kit.until(lambda: states() == {"web": "exited", "cache": "running"}, "one stopped, one went, one came")
        await node.say(Status(placement=Placement(known=False, reason="podman does not answer")))
        await kit.until(lambda: not kit.node_row(database, key.node_id).placement_known, "unknown")
        assert states() == {"web": "exited", "cache": "running"}, "unknown is not empty"
        await node.leave()

    kit.run(scenario())


def test_what_runs_is_told_anew_over_each_connection(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings, placement_told=False)
    whole = kit.status(placement=Placement(known=True, containers=[kit.container("web")]))

    def told() -> bool:
        return bool(kit.node_row(database, key.node_id).placement_told)

    async def scenario() -> None:
        for _ in range(2):
            node = await kit.connected(gateway, key)
            assert not told(), "it was told over another connection, if at all"
            await node.say(whole)
            await kit.until(told, "the same as before is told again")
            await node.leave()
            await kit.until(lambda: kit.node_row(database, key.node_id).connection_id is None, "released")

    kit.run(scenario())


def test_events_are_stored_once_in_order_and_acknowledged(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.event(1, text="one"), kit.event(2, text="two"))
        await node.hear(Ack, lambda ack: ack.seq == 2)
        await node.leave()
        again = await kit.connected(gateway, key)
        await again.say(kit.event(1, text="one"), kit.event(2, text="two"), kit.event(3, text="three"))
        await again.hear(Ack, lambda ack: ack.seq == 3)
        stored = kit.event_rows(database, key.node_id, "check-failed")
        assert [(row.seq, row.text) for row in stored] == [(1, "one"), (2, "two"), (3, "three")]
        await again.leave()

    kit.run(scenario())


def test_an_acknowledgement_waits_for_the_commit(start: Start, database: Database, settings: Settings) -> None:
    """While another transaction holds the node's row, nothing is acknowledged; after it, everything is."""
    gateway = start()
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.event(1))
        await node.hear(Ack)
        with database.write() as change:  # on SQLite the only writer; on PostgreSQL the row
            change.conn.execute(
                schema.nodes.update().where(schema.nodes.c.id == key.node_id).values(name="held by an operator")
            )
            await node.say(kit.event(2))
            try:
                async with asyncio.timeout(0.5):
                    await node.hear(Ack, lambda ack: ack.seq == 2)
                raise AssertionError("acknowledged before it could be committed")
            except TimeoutError:
                assert len(kit.event_rows(database, key.node_id, "check-failed")) == 1
        await node.hear(Ack, lambda ack: ack.seq == 2)
        assert len(kit.event_rows(database, key.node_id, "check-failed")) == 2
        await node.leave()

    kit.run(scenario())


def test_a_report_ends_its_operation_by_what_was_seen(
    gateway: GatewayThread, database: Database, settings: Settings
) -> None:
    key = kit.new_node(database, settings, boot_id="boot-old")
    with database.write() as change:
        operation = add_operation(change.conn, key.node_id, phase="soaking", old_boot_id="boot-old")

    def result() -> str | None:
        with database.read() as conn:
            query = schema.operations.select().where(schema.operations.c.id == operation)
            return conn.execute(query).one().result  # type: ignore[no-any-return]

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        report = OperationReport(
            seq=1, operation_id=operation, order=Order(1, 1), result=Result.SUCCEEDED, at=0.0, reason="soaked"
        )
        # The state that bears it out is in the same batch, and is stored first.
        await node.say(kit.status(facts=kit.facts("boot-new"), slots=kit.slots("2.0")), report)
        await node.hear(Ack, lambda ack: ack.seq == 1)
        assert result() == "succeeded"
        await node.say(OperationReport(seq=2, operation_id=operation, order=Order(1, 1), result=Result.FELL_BACK, at=0))
        await node.hear(Ack, lambda ack: ack.seq == 2)
        assert result() == "succeeded", "terminal is terminal"
        await node.leave()

    kit.run(scenario())


_POISON = {
    "sqlite": (
        "CREATE TRIGGER poison BEFORE UPDATE ON nodes WHEN NEW.os_name = 'poison'"
        " BEGIN SELECT RAISE(ABORT, 'poison'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION poison() RETURNS trigger AS $$ BEGIN IF NEW.os_name = 'poison' THEN"
        " RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER poison BEFORE UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION poison()",
    ),
}


def test_a_node_that_cannot_be_stored_is_set_apart(start: Start, database: Database, settings: Settings) -> None:
    with database.write() as change:
        for statement in _POISON[database.engine.dialect.name]:
            change.conn.execute(text(statement))
    gateway = start(write_every_s=0.3, write_soon_s=0.3)  # so that all are in one batch
    keys = [kit.new_node(database, settings) for _ in range(4)]

    async def scenario() -> None:
        nodes = await kit.gathered(*(kit.connected(gateway, key) for key in keys))
        for number, node in enumerate(nodes):
            facts = kit.facts(name="poison") if number == 1 else kit.facts()
            await node.say(kit.status(facts=facts), kit.event(1))
        assert await nodes[1].closed() == CloseCode.MALFORMED
        for number in (0, 2, 3):
            await nodes[number].hear(Ack)
            assert kit.node_row(database, keys[number].node_id).version == "1.0"
            await nodes[number].leave()
        assert not kit.event_rows(database, keys[1].node_id, "check-failed")

    kit.run(scenario())


def test_a_node_that_talks_too_fast_is_read_no_faster_than_it_is_stored(
    start: Start, database: Database, settings: Settings
) -> None:
    gateway = start(happenings=4)
    fast, calm = kit.new_node(database, settings), kit.new_node(database, settings)

    async def scenario() -> None:
        first, second = await kit.gathered(kit.connected(gateway, fast), kit.connected(gateway, calm))
        await first.say(*(kit.event(seq, text=str(seq)) for seq in range(1, 501)))
        await second.say(kit.event(1))
        await second.hear(Ack)
        await first.hear(Ack, lambda ack: ack.seq == 500)
        stored = [row.seq for row in kit.event_rows(database, fast.node_id, "check-failed")]
        assert stored == list(range(1, 501))
        await kit.gathered(first.leave(), second.leave())

    kit.run(scenario())


def test_the_database_away_keeps_sockets_and_loses_nothing(
    start: Start, database: Database, settings: Settings
) -> None:
    """A gateway on a database of its own connection pool, that fails for a while."""
    key = kit.new_node(database, settings)
    own = open_database(database.engine.url.render_as_string(hide_password=False))
    gateway = start(db=own)

    async def scenario() -> None:
        node = await kit.connected(gateway, key)
        await node.say(kit.status())
        await kit.until(lambda: row_is(database, key, "1.0"), "stored")
        with Outage(own):
            await node.say(kit.status(slots=kit.slots("2.0")), kit.event(1), kit.status(slots=kit.slots("3.0")))
            await kit.answers(gateway, "/readyz", 503)
            assert (await kit.http_get(gateway, "/healthz"))[0] == 200
            await node.connection.ping()
            try:
                async with asyncio.timeout(0.5):
                    await node.hear(Ack)
                raise AssertionError("acknowledged without a database")
            except TimeoutError:
                assert row_is(database, key, "1.0")
        await node.hear(Ack)
        await kit.until(lambda: row_is(database, key, "3.0"), "the newest state")
        await kit.answers(gateway, "/readyz", 200)
        await node.leave()

    try:
        kit.run(scenario())
    finally:
        gateway.stop()
        own.close()


class Outage:
    """Makes every new transaction of `db` fail as if nobody listened."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def __enter__(self) -> None:
        def refuse(*_: object) -> None:
            raise OperationalError(None, None, Exception("nobody listens"))

        self._refuse = refuse
        sqlalchemy_event.listen(self._db.engine, "begin", refuse)

    def __exit__(self, *_: object) -> None:
        sqlalchemy_event.remove(self._db.engine, "begin", self._refuse)


def test_nothing_is_counted_twice_when_two_gateways_hear_a_node(
    start: Start, database: Database, settings: Settings
) -> None:
    first, second = start(), start()
    key = kit.new_node(database, settings)

    async def scenario() -> None:
        node = await kit.connected(first, key)
        await node.say(kit.event(1))
        await node.hear(Ack)
        await node.leave()
        again = await kit.connected(second, key)
        await again.say(kit.event(1), kit.event(2))
        await again.hear(Ack, lambda ack: ack.seq == 2)
        assert len(kit.event_rows(database, key.node_id, "check-failed")) == 2
        await again.leave()

    kit.run(scenario())
    assert count_rows(database, schema.gateways) == 2
