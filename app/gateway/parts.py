"""What the pieces of one gateway share."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.config import Settings
from app.gateway.closing import Closer
from app.gateway.counts import Counts
from app.gateway.dispatch import Dispatcher
from app.gateway.keyring import Keyring
from app.gateway.limits import Limits
from app.gateway.registry import Doorway, Registry
from app.gateway.settling import Settling
from app.gateway.threads import DatabaseThreads, Gathering
from app.gateway.writer import Writer
from app.ids import new_id
from app.services import connections
from app.services.connections import Answer, Claim
from app.store.connections import Identity
from app.store.database import Database


@dataclass(slots=True)
class Parts:
    """See `make_parts`."""

    gateway_id: str
    name: str
    db: Database
    settings: Settings
    limits: Limits
    counts: Counts
    threads: DatabaseThreads
    closer: Closer
    registry: Registry
    doorway: Doorway
    dispatcher: Dispatcher
    writer: Writer
    lookups: Gathering[str, Identity | None]
    claims: Gathering[Claim, Answer]
    keyring: Keyring
    draining: bool = False


def make_parts(db: Database, settings: Settings, limits: Limits, threads: DatabaseThreads) -> Parts:
    """Everything of one gateway, on the running loop."""
    name = os.uname().nodename
    counts, registry = Counts(), Registry()
    closer = Closer(counts)
    keyring = Keyring(db, settings, threads, limits.batch_nodes)
    dispatcher = Dispatcher(db, settings, threads, registry, closer, keyring, limits, name)
    return Parts(
        gateway_id=new_id("gw"),
        name=name,
        db=db,
        settings=settings,
        limits=limits,
        counts=counts,
        threads=threads,
        closer=closer,
        registry=registry,
        doorway=Doorway(limits.unproved, limits.unproved_per_remote),
        dispatcher=dispatcher,
        writer=Writer(db, threads, limits, counts, Settling(closer, dispatcher).settle),
        lookups=Gathering(threads, lambda node_ids: _look_up(db, node_ids), limits.batch_nodes),
        keyring=keyring,
        claims=Gathering(threads, lambda claims: connections.claim(db, claims, time.time()), limits.batch_nodes),
    )


def _look_up(db: Database, node_ids: Sequence[str]) -> list[Identity | None]:
    found = connections.look_up(db, node_ids)
    return [found.get(node_id) for node_id in node_ids]
