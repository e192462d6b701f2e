"""How long a running rollout will take. It needs a plan of the whole fleet, so readers share one for a while."""

from __future__ import annotations

from markupsafe import Markup

from app.core.rollouts import ACTIVE
from app.services.rollout_preview import preview
from app.store.rollouts import Rollout
from app.web.context import console, now
from app.web.htmx import render
from app.web.rollout_plan_view import WorstRow
from app.web.rollout_words import range_words

_PACE_S = 30.0
"""A range of hours does not change within this."""


def outlook(rollout: Rollout) -> Markup:
    """The tile of the range to the end, and why it never ends; empty for one that does not run."""
    if rollout.state not in ACTIVE:
        return Markup()
    key = ("rollout-outlook", rollout.id)
    etag = f"{rollout.state} {int(now() // _PACE_S)}"
    fragment, _ = console().fragments.get(key, etag, now(), lambda: _draw(rollout), pace_s=_PACE_S)
    return Markup(fragment.body.decode())  # noqa: S704 -- rendered by a template of ours


def _draw(rollout: Rollout) -> str:
    seen = preview(console().db, rollout.id, now())
    if seen.place < 0:
        return ""
    found = seen.estimate
    return render("rollouts/_outlook.html", takes=range_words(found), never=found.never)


def planned_worst(rollout: Rollout) -> list[WorstRow]:
    """Worst moments as they were planned at its start."""
    return [
        WorstRow(each["scope"], each["name"], each["healthy_now"], each["left"], each["floor"], "")
        for each in (rollout.forecast or {}).get("worst", ())
    ]
