from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from app.config import Settings
from app.core.errors import Invalid, NotFound, NotPossible
from app.services.joining import JoinRefused, RefusalCode, admit_join, create_token, join_command, revoke_token
from app.store import channels, join_tokens, joins, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_channel, add_node, add_server_key, count_rows
from wire import identity
from wire.messages import Join, Joined, OsFacts

SERVER_KEY = identity.public_key(identity.new_private_key())
DAY = 86_400.0


def token_for(db: Database, **given: Any) -> tuple[str, str]:
    values: dict[str, Any] = {"max_uses": 1, "expires_at": NOW + DAY, "reason": "test", "now": NOW}
    return create_token(db, OPERATOR, **{**values, **given})


def join_with(token: str, **given: Any) -> Join:
    values: dict[str, Any] = {
        "token": token,
        "public_key": identity.public_key(identity.new_private_key()),
        "signature": "A" * 86,
        "name": "web-01",
        "machine_id": "machine-a",
        "hardware": "sha256:a",
        "os": OsFacts(id="flatcar", name="Flatcar", version="4081.2.1", arch="amd64"),
    }
    return Join(**{**values, **given})


def attempt(db: Database, join: Join, remote: str = "192.0.2.10", now: float = NOW) -> Joined:
    with db.write() as change:
        add_server_key(change.conn, SERVER_KEY)
    return admit_join(db, join, remote, SERVER_KEY, now)


def node(db: Database, node_id: str) -> Mapping[str, Any]:
    with db.read() as conn:
        return conn.execute(select(schema.nodes).where(schema.nodes.c.id == node_id)).one()._mapping


def refusal(db: Database, join: Join, remote: str = "192.0.2.10", now: float = NOW) -> RefusalCode:
    """The code of the refusal, which changed nothing but the list of attempts."""
    before = count_rows(db, schema.nodes), count_rows(db, schema.audit), count_rows(db, schema.events)
    with pytest.raises(JoinRefused) as refused:
        attempt(db, join, remote, now)
    assert (count_rows(db, schema.nodes), count_rows(db, schema.audit), count_rows(db, schema.events)) == before
    with db.read() as conn:
        latest = joins.attempts(conn)[0]
    assert (latest.code, latest.text) == (refused.value.code, refused.value.text)
    assert latest.refused
    assert latest.remote == remote
    return refused.value.code


def test_a_machine_joins_as_the_token_says(database: Database) -> None:
    with database.write() as change:
        stable = add_channel(change.conn, "stable")
    _, token = token_for(database, labels={"zone": "a"}, channel_id=stable)
    joined = attempt(database, join_with(token, labels={"zone": "b", "rack": "7"}))
    row = node(database, joined.node_id)
    assert joined == Joined(node_id=row["id"], admission="admitted", replaces=None)
    assert row["labels"] == {"zone": "a", "rack": "7"}  # the operator's label wins
    assert (row["name"], row["admission"], row["channel_id"]) == ("web-01", "admitted", stable)
    assert (row["os_id"], row["arch"], row["connection"]) == ("flatcar", "amd64", "never")
    assert row["admitted_at"] == NOW
    with database.read() as conn:
        assert [one.refused for one in joins.attempts(conn)] == [False]
        assert [kind for (kind,) in conn.execute(select(schema.events.c.kind))] == ["joined"]


def test_a_node_may_wait_for_approval(database: Database) -> None:
    _, token = token_for(database, admit=False)
    joined = attempt(database, join_with(token))
    assert joined.admission == "pending"
    assert node(database, joined.node_id)["admitted_at"] is None
    with database.read() as conn:
        assert [one.id for one in joins.waiting(conn)] == [joined.node_id]


def test_the_same_key_and_token_get_the_same_answer_and_spend_one_use(database: Database) -> None:
    token_id, token = token_for(database, max_uses=2)
    join = join_with(token)
    first = attempt(database, join)
    assert attempt(database, join) == first
    assert attempt(database, join, now=NOW + 2 * DAY) == first  # the answer was lost, and the token expired meanwhile
    with database.read() as conn:
        found = join_tokens.get(conn, token_id)
    assert found is not None
    assert found.uses == 1
    assert count_rows(database, schema.nodes) == 1


def test_a_token_of_one_use_lets_one_of_twenty_in(database: Database) -> None:
    _, token = token_for(database)
    wanting = [join_with(token, machine_id=f"machine-{number}", name=f"n{number}") for number in range(20)]

    def try_it(join: Join) -> str:
        try:
            return attempt(database, join).node_id
        except JoinRefused as refused:
            return refused.code

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(try_it, wanting))
    assert answers.count(RefusalCode.SPENT) == 19
    assert count_rows(database, schema.nodes) == 1
    assert count_rows(database, schema.join_attempts) == 20


def test_one_machine_that_asks_twenty_times_at_once_is_one_node(database: Database) -> None:
    _, token = token_for(database, max_uses=5)
    join = join_with(token)
    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(lambda _: attempt(database, join).node_id, range(20)))
    assert len(answers) == 1
    assert count_rows(database, schema.nodes) == 1


def test_a_spent_token_is_refused(database: Database) -> None:
    _, token = token_for(database)
    attempt(database, join_with(token))
    assert refusal(database, join_with(token, machine_id="other")) == RefusalCode.SPENT


def test_an_expired_token_is_refused(database: Database) -> None:
    _, token = token_for(database)
    assert refusal(database, join_with(token), now=NOW + DAY) == RefusalCode.EXPIRED


def test_a_revoked_token_is_refused_and_its_nodes_stay(database: Database) -> None:
    token_id, token = token_for(database, max_uses=9)
    joined = attempt(database, join_with(token))
    revoke_token(database, OPERATOR, token_id, "leaked", NOW)
    assert refusal(database, join_with(token, machine_id="other")) == RefusalCode.REVOKED
    assert node(database, joined.node_id)["admission"] == "admitted"
    with pytest.raises(NotPossible):
        revoke_token(database, OPERATOR, token_id, "again", NOW)
    with pytest.raises(NotFound):
        revoke_token(database, OPERATOR, "join_none", "", NOW)


def test_an_unknown_token_is_refused(database: Database) -> None:
    assert refusal(database, join_with("trj_invented")) == RefusalCode.UNKNOWN_TOKEN


def test_a_foreign_network_is_refused_and_spends_nothing(database: Database) -> None:
    _, token = token_for(database, networks=["10.0.0.0/8", "2001:db8::/32"])
    assert refusal(database, join_with(token), remote="192.0.2.10") == RefusalCode.FOREIGN_NETWORK
    assert attempt(database, join_with(token), remote="10.1.2.3").admission == "admitted"


def test_a_key_that_joined_with_another_token_is_refused(database: Database) -> None:
    _, first = token_for(database)
    _, second = token_for(database)
    join = join_with(first)
    attempt(database, join)
    again = join_with(second, public_key=join.public_key)
    assert refusal(database, again) == RefusalCode.KEY_KNOWN


def test_the_key_of_a_retired_node_is_refused(database: Database) -> None:
    _, token = token_for(database, max_uses=2)
    join = join_with(token)
    joined = attempt(database, join)
    with database.write() as change:
        change.conn.execute(schema.nodes.update().values(admission="retired"))
    assert refusal(database, join) == RefusalCode.RETIRED
    assert joined.node_id


def test_labels_that_cannot_be_shown_are_refused_and_spend_nothing(database: Database) -> None:
    token_id, token = token_for(database, labels={"zone": "a"})
    assert refusal(database, join_with(token, labels={"x": "a\x1b[2J"})) == RefusalCode.BAD_LABELS
    with database.read() as conn:
        found = join_tokens.get(conn, token_id)
    assert found is not None
    assert found.uses == 0


def test_a_machine_that_joins_again_replaces_the_node_that_it_was(database: Database) -> None:
    _, token = token_for(database, max_uses=3)
    old = attempt(database, join_with(token))
    new = attempt(database, join_with(token, name="web-01"))
    assert new.node_id != old.node_id
    assert new.replaces == old.node_id
    before, after = node(database, old.node_id), node(database, new.node_id)
    assert (before["admission"], before["replaced_by_id"], before["retired_at"]) == ("retired", new.node_id, NOW)
    assert after["replaces_id"] == old.node_id
    third = attempt(database, join_with(token))
    assert third.replaces == new.node_id
    with database.read() as conn:
        kinds = [kind for (kind,) in conn.execute(select(schema.events.c.kind).order_by(schema.events.c.id))]
    assert kinds.count("joined") == 3
    assert kinds.count("retired") == 2


def test_a_token_that_needs_approval_takes_no_node_away(database: Database) -> None:
    _, strong = token_for(database)
    old = attempt(database, join_with(strong))
    _, weak = token_for(database, admit=False)
    new = attempt(database, join_with(weak))
    assert (new.admission, new.replaces) == ("pending", old.node_id)
    assert node(database, old.node_id)["admission"] == "admitted"


def test_another_machine_replaces_nothing(database: Database) -> None:
    _, token = token_for(database, max_uses=3)
    attempt(database, join_with(token))
    assert attempt(database, join_with(token, hardware="sha256:b")).replaces is None
    assert attempt(database, join_with(token, machine_id="")).replaces is None


def test_machines_without_any_identity_do_not_replace_each_other(database: Database) -> None:
    with database.write() as change:
        add_node(change.conn, machine_id="", hardware="")
    _, token = token_for(database)
    assert attempt(database, join_with(token, machine_id="", hardware="")).replaces is None


def test_a_name_that_cannot_be_shown_is_made_showable(database: Database) -> None:
    _, token = token_for(database, max_uses=2)
    first = attempt(database, join_with(token, name="web\n\x1b[31m-01"))
    assert node(database, first.node_id)["name"] == "web[31m-01"
    second = attempt(database, join_with(token, name="", machine_id="0123456789abcdef"))
    assert node(database, second.node_id)["name"] == "0123456789ab"


def test_the_list_of_attempts_is_bounded(database: Database) -> None:
    with database.write() as change:
        for number in range(8):
            one = joins.Attempt(0, NOW, "192.0.2.1", f"n{number}", None, None, "unknown-token", "")
            joins.add_attempt(change.conn, one, kept=5)
    with database.read() as conn:
        assert [one.name for one in joins.attempts(conn)] == ["n7", "n6", "n5", "n4", "n3"]


def test_the_token_is_not_readable_from_the_database(database: Database) -> None:
    _, token = token_for(database)
    attempt(database, join_with(token))
    with database.read() as conn:
        tables = (schema.join_tokens, schema.join_attempts, schema.audit, schema.nodes)
        rows = [row for table in tables for row in conn.execute(select(table))]
    assert token.startswith("trj_")
    assert token not in repr(rows)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("max_uses", {"max_uses": 0}),
        ("max_uses", {"max_uses": 100_001}),
        ("expires_at", {"expires_at": NOW}),
        ("expires_at", {"expires_at": NOW + 400 * DAY}),
        ("networks", {"networks": ["10.0.0.1/8"]}),
        ("labels", {"labels": {"-": "a"}}),
        ("note", {"note": "x" * 201}),
    ],
)
def test_a_token_with_bad_input_is_not_made(database: Database, field: str, given: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        token_for(database, **given)
    assert refused.value.field == field
    assert count_rows(database, schema.join_tokens) == 0


def test_a_token_needs_a_channel_that_exists(database: Database) -> None:
    with pytest.raises(NotFound):
        token_for(database, channel_id="chan_none")
    with database.read() as conn:
        assert channels.all_channels(conn) == []


def test_the_command_carries_address_token_and_fingerprint(settings: Settings) -> None:
    said = join_command(replace(settings, agent_url="wss://twin.example/agent"), "sha256:ab", "trj_x")
    assert said == "twinroot-agent join wss://twin.example/agent trj_x --fingerprint sha256:ab"
