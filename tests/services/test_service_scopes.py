"""Services whose scope is the name of their nodes' group: what is known of them outlives a new name."""

from __future__ import annotations

from app.services import groups, services
from app.services.admission import grant_leases
from app.services.service_watch import ServiceWatch
from app.store import services as service_rows
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, group, holders, node


def test_a_new_name_of_a_group_lowers_no_floor(database: Database) -> None:
    """The scope of its services is its name: what was said and seen of them goes with it."""
    fleet.gateway(database)
    group_id = group(database, "blue", "*", max_unavailable={"count": 4})
    ids = [node(database, name, [("web", {"scope": ""}), ("db", {"scope": ""})]) for name in "abcd"]
    services.set_floor(database, OPERATOR, ("blue", "db"), 2, "quorum", NOW)
    ServiceWatch().step(database, NOW)
    change_node(database, ids[0], connection="offline")
    groups.change(database, OPERATOR, group_id, groups.Wish(name="azure"), "nicer", NOW + 1)
    for node_id in ids[1:]:
        asks(database, node_id, NOW + 1)
    grant_leases(database, NOW + 2)
    assert not holders(database), "web had 4, has 3, and its floor is 3"
    with database.read() as conn:
        assert service_rows.words(conn)[("azure", "db")].said.floor == 2
