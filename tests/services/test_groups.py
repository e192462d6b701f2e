from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select

from app.core.errors import Invalid, NotFound, NotPossible
from app.core.group_policy import Amount, GroupPolicy
from app.core.policy import Policy
from app.services import fleet, freezes, groups
from app.services.groups import Wish
from app.store import groups as store
from app.store import nodes, revisions, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_channel, add_node, count_rows

NIGHTLY = {
    "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    "opens": "01:00",
    "closes": "03:00",
    "zone": "UTC",
}
TOPICS = ("groups", "fleet", "nodes")


def create(db: Database, name: str = "edge", selector: str = "zone=a", **wish: object) -> str:
    return groups.create(db, OPERATOR, Wish(name, selector, **wish), "why", NOW)  # type: ignore[arg-type]


def add_rollout(db: Database, group_id: str, state: str, number: int = 12) -> None:
    given = {"id": f"rollout_{number}", "number": number, "kind": "update", "state": state, "group_id": group_id}
    lists = {"targets": [], "policy": {}, "allowances": [], "left_out": []}
    with db.write() as change:
        change.conn.execute(insert(schema.rollouts).values(actor="mb", reason="r", created_at=NOW, **given, **lists))


def revised(db: Database) -> dict[str, int]:
    with db.read() as conn:
        return revisions.of_topics(conn, TOPICS)


def audited(db: Database) -> list[tuple[str, str, str, object, object]]:
    with db.read() as conn:
        rows = conn.execute(select(schema.audit).order_by(schema.audit.c.id)).all()
    return [(row.action, row.object, row.reason, row.before, row.after) for row in rows]


def test_a_group_is_made_with_what_was_said(database: Database) -> None:
    with database.write() as change:
        channel = add_channel(change.conn, "stable")
    before = revised(database)
    group_id = create(database, precedence=5, channel="stable", policy={"canaries": {"count": 2}})
    with database.read() as conn:
        found = store.get(conn, group_id)
        assert store.by_name(conn, "edge") == found
    assert found is not None
    assert (found.name, found.selector.text, found.precedence) == ("edge", "zone=a", 5)
    assert (found.channel_id, found.policy, found.created_by) == (channel, GroupPolicy(canaries=Amount(count=2)), "mb")
    assert all(revised(database)[topic] > before[topic] for topic in TOPICS)
    ((action, about, reason, was, now),) = audited(database)
    assert (action, about, reason, was) == ("group.create", f"group:{group_id}", "why", None)
    assert now == {
        "name": "edge",
        "selector": "zone=a",
        "precedence": 5,
        "channel": channel,
        "policy": {"canaries": {"count": 2}},
    }


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Wish(None, "*"), "name"),
        (Wish("edge", None), "selector"),
        (Wish("Edge", "*"), "name"),
        (Wish("edge", " "), "selector"),
        (Wish("edge", "*", precedence=10**9), "precedence"),
        (Wish("edge", "*", channel="nope"), "channel"),
        (Wish("edge", "*", policy={"speed": 1}), "speed"),
        (Wish("edge", "*", policy={"max_per_domain": 1}), "domain_label"),
        (Wish("edge", "*", policy={"timing": {"reconnect_allowance_s": 5}}), "timing.reconnect_allowance_s"),
        (Wish("edge", "*", policy={"timing": []}), "timing"),
    ],
)
def test_bad_wishes_make_nothing(database: Database, wish: Wish, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        groups.create(database, OPERATOR, wish, "why", NOW)
    assert refused.value.field == field
    assert count_rows(database, schema.groups) == 0
    assert audited(database) == []


def test_a_name_is_given_once(database: Database) -> None:
    create(database)
    other = create(database, "core")
    with pytest.raises(NotPossible) as refused:
        create(database)
    assert refused.value.code == "group-exists"
    with pytest.raises(NotPossible):
        groups.change(database, OPERATOR, other, Wish(name="edge"), "why", NOW)
    assert count_rows(database, schema.groups) == 2
    assert count_rows(database, schema.audit) == 2


def test_of_many_who_make_it_at_once_one_does(database: Database) -> None:
    def try_it(_: int) -> bool:
        try:
            create(database)
        except NotPossible:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(try_it, range(6))) == 1
    assert count_rows(database, schema.groups) == 1


def test_a_change_touches_only_what_it_names(database: Database) -> None:
    said = {"canaries": {"count": 2}, "timing": {"soak_s": 60, "confirm_s": 90}}
    group_id = create(database, precedence=5, policy=said)
    policy = {"timing": {"soak_s": None, "lease_s": 30}, "canaries": None, "stage_parallel": 20}
    groups.change(database, OPERATOR, group_id, Wish(selector="zone=b", policy=policy), "again", NOW)
    with database.read() as conn:
        found = store.get(conn, group_id)
        stored = store.said(conn, group_id)
    assert found is not None
    assert (found.name, found.selector.text, found.precedence) == ("edge", "zone=b", 5)
    assert stored == {"timing": {"confirm_s": 90.0, "lease_s": 30.0}, "stage_parallel": 20}
    assert found.policy == GroupPolicy(timing=Policy(confirm_s=90.0, lease_s=30.0))
    action, _, reason, before, after = audited(database)[-1]
    assert (action, reason) == ("group.change", "again")
    assert isinstance(before, dict) and isinstance(after, dict)
    assert before["selector"] == "zone=a" and after["policy"] == stored


def test_what_was_said_stays_when_the_fleets_policy_moves(database: Database) -> None:
    """A duration that a group names is its own, also where it is the default's; the others follow the fleet."""
    group_id = create(database, policy={"timing": {"soak_s": Policy().soak_s}})
    before = revised(database)["groups"]
    fleet.set_policy(database, OPERATOR, {"soak_s": 5.0, "confirm_s": 7.0}, "why", NOW)
    assert revised(database)["groups"] > before
    with database.read() as conn:
        found = store.get(conn, group_id)
    assert found is not None
    assert (found.policy.timing.soak_s, found.policy.timing.confirm_s) == (Policy().soak_s, 7.0)


def test_a_change_that_changes_nothing_says_so(database: Database) -> None:
    group_id = create(database, policy={"timing": {"soak_s": 60}})
    for wish in (Wish(), Wish(name="edge", precedence=0, channel=""), Wish(policy={"timing": {"soak_s": 60.0}})):
        with pytest.raises(NotPossible) as refused:
            groups.change(database, OPERATOR, group_id, wish, "why", NOW)
        assert refused.value.code == "no-change"
    with pytest.raises(NotFound):
        groups.change(database, OPERATOR, "group_none", Wish(precedence=1), "why", NOW)


def test_fields_that_fit_only_together(database: Database) -> None:
    group_id = create(database, policy={"domain_label": "zone", "max_per_domain": 1})
    with pytest.raises(Invalid) as refused:
        groups.change(database, OPERATOR, group_id, Wish(policy={"domain_label": None}), "why", NOW)
    assert refused.value.field == "domain_label"


@pytest.mark.parametrize("state", ["draft", "running", "paused", "halted", "rolling-back"])
def test_a_group_stays_while_its_rollout_has_not_ended(database: Database, state: str) -> None:
    group_id = create(database)
    add_rollout(database, group_id, state)
    with pytest.raises(NotPossible, match=f"Rollout 12 of edge is {state.replace('-', ' ')}") as refused:
        groups.remove(database, OPERATOR, group_id, "why", NOW)
    assert refused.value.code == "rollout-open"
    assert count_rows(database, schema.groups) == 1


def test_a_removed_group_leaves_its_rollouts_history(database: Database) -> None:
    group_id = create(database)
    freeze_id = freezes.freeze(database, OPERATOR, group_id=group_id, reason="r", now=NOW)
    freezes.lift(database, OPERATOR, freeze_id, "over", NOW)
    add_rollout(database, group_id, "succeeded", 1)
    add_rollout(database, group_id, "aborted", 2)
    with pytest.raises(Invalid):
        groups.remove(database, OPERATOR, group_id, " ", NOW)
    groups.remove(database, OPERATOR, group_id, "merged into core", NOW)
    assert count_rows(database, schema.groups) == count_rows(database, schema.freezes) == 0
    with database.read() as conn:
        assert conn.execute(select(schema.rollouts.c.group_id)).scalars().all() == [None, None]
    assert audited(database)[-1][0] == "group.remove"
    with pytest.raises(NotFound):
        groups.remove(database, OPERATOR, group_id, "again", NOW)


def test_the_page_of_a_group(database: Database) -> None:
    with database.write() as change:
        add_channel(change.conn, "beta")
        add_node(change.conn, labels={"zone": "a"})
        add_node(change.conn, labels={"zone": "a"}, admission="pending")
        add_node(change.conn, labels={"zone": "a"}, admission="retired")
        add_node(change.conn, labels={"zone": "b"})
    group_id = create(database, channel="beta", policy={"windows": [NIGHTLY]})
    other = create(database, "core", "zone=b")
    for frozen in (group_id, other, None):
        freezes.freeze(database, OPERATOR, group_id=frozen, reason="r", now=NOW, starts_at=NOW + 60)
    with database.read() as conn:
        page = groups.describe(conn, group_id, NOW)
        always = groups.describe(conn, other, NOW)
        with pytest.raises(NotFound):
            groups.describe(conn, "group_none", NOW)
    assert (page.group.id, page.channel, page.members) == (group_id, "beta", 1)
    assert len(page.openings) == 5
    assert [closes - opens for opens, closes in page.openings] == [7200.0] * 5
    assert page.open_now == (page.openings[0][0] <= NOW)
    assert page.closes_at == (page.openings[0][1] if page.open_now else None)
    assert [each.group_id for each in page.freezes] == [group_id, None]
    assert (always.open_now, always.closes_at, always.openings, always.channel) == (True, None, (), "")
    assert not any(math.isinf(closes) for _, closes in page.openings)


def test_the_policy_of_a_nodes_operations(database: Database) -> None:
    fleet.set_policy(database, OPERATOR, {"soak_s": 5.0}, "why", NOW)
    create(database, "all", "*", policy={"timing": {"confirm_s": 70}, "canaries": {"count": 3}})
    create(database, "edge", "zone=a", precedence=1, policy={"timing": {"confirm_s": 80}})
    with database.write() as change:
        ids = [add_node(change.conn, labels=labels) for labels in ({"zone": "a"}, {})]
    with database.read() as conn:
        edge, plain = (nodes.get(conn, id) for id in ids)
        assert edge is not None and plain is not None
        assert [each.name for each in groups.groups_of_node(conn, edge)] == ["edge", "all"]
        assert groups.policy_for(conn, edge) == GroupPolicy(timing=Policy(soak_s=5.0, confirm_s=80.0))
        assert groups.policy_for(conn, plain).canaries == Amount(count=3)
    with database.read() as conn:
        (all_id,) = (each.id for each in store.all_groups(conn) if each.name == "all")
    groups.remove(database, OPERATOR, all_id, "why", NOW)
    with database.read() as conn:
        assert groups.policy_for(conn, plain) == GroupPolicy(timing=Policy(soak_s=5.0))
