"""What every page needs: the database, the settings, the clock, and who is signed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from flask import Flask, current_app, g
from sqlalchemy import Connection

from app.config import Settings
from app.core.actors import Actor
from app.services.fleet_plans import FleetPlans
from app.services.sign_in import Session, session_actor
from app.store.database import Database
from app.web.fragments import FragmentCache
from app.web.metrics import WebMetrics
from app.web.outage import Outage

_EXTENSION = "twinroot"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Console:
    db: Database
    settings: Settings
    clock: Callable[[], float]
    fragments: FragmentCache = field(default_factory=FragmentCache)
    plans: FleetPlans = field(default_factory=FleetPlans)
    metrics: WebMetrics = field(default_factory=WebMetrics)
    outage: Outage = field(default_factory=Outage)


def install(app: Flask, console: Console) -> None:
    app.extensions[_EXTENSION] = console


def console() -> Console:
    return cast(Console, current_app.extensions[_EXTENSION])


def read(query: Callable[[Connection], T]) -> T:
    """What `query` finds, on a connection of its own."""
    with console().db.read() as conn:
        return query(conn)


def now() -> float:
    """One moment for the whole request, so that a page agrees with itself."""
    if "now" not in g:
        g.now = console().clock()
    return cast(float, g.now)


def session_or_none() -> Session | None:
    return cast("Session | None", g.get("session"))


def session() -> Session:
    """Who is signed in; only for pages that `security` guards."""
    found = session_or_none()
    assert found is not None, "this page is reached only with a session"
    return found


def actor() -> Actor:
    """The author of what this request changes (rule 9)."""
    return session_actor(session())
