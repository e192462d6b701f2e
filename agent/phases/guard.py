"""The node's own part of rule 3: a lease holds for the containers that the server knew of when it was asked for.

The server grants for the placement that a request followed. Whatever came to run here since then was counted by
nobody, so the lease goes back and is asked for anew.
"""

from __future__ import annotations

from agent.phases.model import Serving, State
from wire.messages import Hold

NAMED = 5
"""Services that a hold names; of more it gives the number."""


def least(relied: Serving | None, now: Serving) -> Serving:
    """What a request may be answered for, with earlier ones unanswered: the least that any of them told."""
    if relied is None:
        return now
    if not relied.known and not now.known:
        return now
    # Of which of the two an answer would be is not known: with either unknown nothing may be relied on.
    shared = relied.replicas.keys() & now.replicas.keys()
    return Serving(
        known=True, replicas={name: min(relied.replicas[name], now.replicas[name]) for name in sorted(shared)}
    )


def objection(state: State) -> Hold | None:
    """Why a lease that was asked for on the ground of `state.relied` must not be used; None when it may."""
    relied, now = state.relied, state.serving
    if relied is None:
        return None
    if not relied.known:
        text = "it was not known what runs here when the lease was asked for, and now it is"
        return Hold(code="placement-changed", text=text) if now.known else None
    if not now.known:
        text = f"it is not known any more what runs here: {now.reason or 'a container engine cannot be read'}"
        return Hold(code="placement-unknown", text=text)
    grown = sorted(name for name, count in now.replicas.items() if count > relied.replicas.get(name, 0))
    if not grown:
        return None
    more = f" and {len(grown) - NAMED} more" if len(grown) > NAMED else ""
    text = f"containers moved here since it asked: {', '.join(grown[:NAMED])}{more}"
    return Hold(code="placement-changed", text=text)
