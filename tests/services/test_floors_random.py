"""Random fleets in the database, several rounds of granting: a naive count of replicas says who may have gone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select, update

from app.services import declare, services
from app.services.admission import grant_leases
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, group, holders, node, told
from tests.services.test_rollouts import ON_SQLITE

SERVICES = ("web", "db", "cache")


@dataclass
class Machine:
    """What really is on a node, and what of it can be seen."""

    id: str
    name: str
    healthy: Counter[str]
    away: bool = False
    on_trial: bool = False
    known: bool = True
    declared: Counter[str] | None = None
    taken: Counter[str] = field(default_factory=Counter)
    """By its lease."""
    leased: bool = False

    @property
    def counted(self) -> Counter[str]:
        """Replicas that we may count on, as far as anybody says."""
        if self.away or self.on_trial or self.leased:
            return Counter()
        return self.healthy if self.known else self.declared or Counter()


class Town:
    def __init__(self, db: Database, dice: random.Random) -> None:
        self.db, self.dice, self.now = db, dice, NOW + 1
        fleet.gateway(db)
        group(db, max_unavailable={"share": 1.0})
        self.machines = [self._machine(f"n{number}") for number in range(dice.randrange(3, 9))]
        self.expected = {name: dice.randrange(1, 6) for name in SERVICES}
        self.floor = {name: dice.randrange(0, self.expected[name] + 1) for name in SERVICES}
        for name in SERVICES:
            services.set_expected(db, OPERATOR, ("shop", name), self.expected[name], "as the dice say", NOW)
            services.set_floor(db, OPERATOR, ("shop", name), self.floor[name], "as the dice say", NOW)

    def _machine(self, name: str) -> Machine:
        dice = self.dice
        healthy = Counter({service: dice.choice([1, 1, 2]) for service in SERVICES if dice.random() < 0.6})
        runs: list[Any] = [service for service, number in healthy.items() for _ in range(number)]
        runs += [("web", {"health": "unhealthy"})] * dice.randrange(2)  # counted down already
        runs += [("db", {"state": "exited"})] * dice.randrange(2)
        known, odd = dice.random() < 0.8, dice.random()
        values: dict[str, Any] = {"placement_known": known}
        if odd < 0.15:
            values |= {"connection": "offline", "gateway_id": None}
        elif odd < 0.25:
            values |= {"on_trial": True}
        made = Machine(node(self.db, name, runs, **values), name, healthy, odd < 0.15, 0.15 <= odd < 0.25, known)
        if not known and dice.random() < 0.5:
            made.declared = Counter({service: 1 for service in SERVICES if dice.random() < 0.5})
            runs_there = [(("shop", service), number) for service, number in made.declared.items()]
            declare.declare_placement(self.db, OPERATOR, made.id, runs_there, "I looked", NOW)
        return made

    def total(self, service: str) -> int:
        return sum(machine.counted[service] for machine in self.machines)

    def reserved(self, service: str) -> int:
        return sum(machine.taken[service] for machine in self.machines)

    def tick(self) -> None:
        """Everybody asks; who got a lease must have been free to go, in some order."""
        self.now += 10
        with self.db.write() as change:
            change.conn.execute(update(schema.gateways).values(heartbeat_at=self.now))
        for machine in self.machines:
            if not machine.leased:
                asks(self.db, machine.id, self.now - 1, nonce=f"{machine.name}-{self.now}")
        before = {name: self.total(name) for name in SERVICES}
        reserved = {name: self.reserved(name) for name in SERVICES}
        grant_leases(self.db, self.now)
        went = [machine for machine in self.machines if not machine.leased and machine.name in holders(self.db)]
        for machine in went:
            assert not machine.away, "nobody hears it"
            assert machine.known or machine.declared is not None or machine.on_trial, "what runs on it nobody knows"
        for name in SERVICES:
            cost = sum(machine.counted[name] for machine in went)
            free = min(before[name], self.expected[name] - reserved[name]) - self.floor[name]
            if self.floor[name]:
                assert not cost or cost <= free, (name, before, reserved, self.floor)
        for machine in self.machines:
            if machine not in went and not machine.leased:
                self._held_for_a_reason(machine, went)
        for machine in went:
            machine.taken, machine.leased = Counter(machine.counted), True

    def _held_for_a_reason(self, machine: Machine, went: list[Machine]) -> None:
        """A node costs only the replicas that are healthy on it now: none, and nothing holds it."""
        if machine.away:
            return
        if not machine.known and machine.declared is None and not machine.on_trial:
            assert told(self.db, machine.id) == "placement-unknown"
            return
        lacking = []
        for name, cost in machine.counted.items():
            gone = sum(other.counted[name] for other in went)
            free = min(self.total(name), self.expected[name] - self.reserved(name)) - gone - self.floor[name]
            lacking += [name] if cost and self.floor[name] and cost > free else []
        assert lacking, (machine, self.floor, self.expected)
        assert told(self.db, machine.id) in ("service-floor", "single-replica")

    def change(self) -> None:
        """Something beside us: a container fails or comes, a node goes or comes back."""
        machine = self.dice.choice(self.machines)
        if machine.leased or machine.on_trial:
            return
        if self.dice.random() < 0.4:
            machine.away = not machine.away
            there = {"connection": "offline"} if machine.away else {"connection": "online", "gateway_id": fleet.GATEWAY}
            change_node(self.db, machine.id, **there)
        else:
            service = self.dice.choice(SERVICES)
            machine.healthy[service] += 1
            with self.db.write() as change:
                kit.add_container(change.conn, machine.id, service, scope="shop")


@ON_SQLITE
@pytest.mark.parametrize("seed", range(25))
def test_who_gets_a_lease_may_go_and_who_is_held_may_not(database: Database, seed: int) -> None:
    town = Town(database, random.Random(seed))
    for _ in range(4):
        town.tick()
        for _ in range(3):
            town.change()
    with database.read() as conn:
        costs = conn.execute(select(schema.leases.c.node_id, schema.leases.c.costs)).all()
    taken = {
        machine.id: {name: number for name, number in machine.taken.items() if number} for machine in town.machines
    }
    assert all({name: number for _, name, number in row.costs} == taken[row.node_id] for row in costs)
