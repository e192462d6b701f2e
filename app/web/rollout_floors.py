"""Floors and ways back on pages: which nodes wait for them, and the wish to let them go below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request
from sqlalchemy import Connection

from app.core.rollouts import TERMINAL
from app.services import floor_overrides as service
from app.store import floor_overrides as store
from app.store.rollouts import Rollout
from app.web.context import actor, console, now, read
from app.web.forms import reason

_NAMED = 4
NOTHING: Mapping[str, Any] = {"unknown": 0, "unknown_first": [], "floor_waits": []}
"""What a page says of floors that has nothing to say of them."""


def overrides_floor() -> bool:
    """Whether the form lets services fall below their floors; the services ask for a reason."""
    return request.form.get("override_floor") == "yes"


def override(rollout: Rollout) -> None:
    service.override_rollout(console().db, actor(), rollout.id, reason(), now())


def refusal(rollout: Rollout) -> str:
    """Why there is nothing to override; empty where there is."""
    if rollout.state in TERMINAL:
        return f"Rollout {rollout.number} has ended ({rollout.state.value.replace('-', ' ')})."
    if not rollout.leads_back:
        return f"Rollout {rollout.number} does not lead back: floors hold."
    return f"That is so already with rollout {rollout.number}." if rollout.override_floor else ""


def held(conn: Connection, rollout: Rollout) -> list[store.Held]:
    """Why its ways back wait that could be let go below floors."""
    return [] if refusal(rollout) else store.held(conn, rollout.id, _NAMED)


def of_override(rollout: Rollout) -> Mapping[str, Any]:
    return {"floor_waits": read(lambda conn: held(conn, rollout))}


def of_roll_back(rollout: Rollout) -> Mapping[str, Any]:
    """What the dialog of rolling back says of floors before."""
    number, first = read(lambda conn: store.unknown_placements(conn, rollout.id, _NAMED))
    return {"unknown": number, "unknown_first": first}
