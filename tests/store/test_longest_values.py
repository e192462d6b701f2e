"""What the wire lets a node say, both databases store: also the longest, which indexes on PostgreSQL must take."""

from __future__ import annotations

import random

from app.core.texts import INDEXED_BYTES
from app.services import intake, joining
from app.services.intake import Fate, Report, Sections
from app.store import schema
from app.store.database import Database
from tests.gateway.kit import facts
from tests.server_kit import NOW, OPERATOR, add_server_key
from wire import identity
from wire.limits import NAME_CHARS
from wire.messages import Container, Join, OsFacts, Placement, Slot

_CHANCE = random.Random(7)
SERVER_KEY = identity.public_key(identity.new_private_key())


def longest() -> str:
    """Four bytes a character, and nothing that could be compressed."""
    return "".join(chr(_CHANCE.randrange(0x20000, 0x2A6DF)) for _ in range(NAME_CHARS))


def test_a_node_whose_every_name_is_as_long_as_can_be(database: Database) -> None:
    _, token = joining.create_token(database, OPERATOR, expires_at=NOW + 9, reason="", now=NOW)
    join = Join(
        token=token,
        public_key=identity.public_key(identity.new_private_key()),
        signature="A" * 86,
        name=longest(),
        machine_id=longest(),
        hardware=longest(),
        os=OsFacts(id=longest(), name=longest(), version=longest(), kernel=longest(), arch=longest(), driver=longest()),
        labels={"zone": longest()[: INDEXED_BYTES // 4]},
    )
    with database.write() as change:
        add_server_key(change.conn, SERVER_KEY)
    node_id = joining.admit_join(database, join, "192.0.2.1", SERVER_KEY, NOW).node_id
    with database.write() as change:
        change.conn.execute(schema.nodes.update().values(connection_id="c"))
    container = Container(id="c" * 128, name=longest(), image="i" * 1024, service=longest(), scope=longest())
    sections = Sections(
        facts=facts(id=longest()),
        slots=[Slot(name="s" * 64, booted=True, next_boot=True, version=longest())],
        placement=Placement(known=True, engine=longest(), containers=[container]),
    )
    (outcome,) = intake.apply(database, [Report(node_id, "c", NOW, sections)], NOW)
    assert outcome.fate is Fate.STORED
