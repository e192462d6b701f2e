"""How long and how much: every constant of the gateway, with its unit and its reason. Tests make them small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    heartbeat_s: float = 30.0
    """Five thousand nodes cost 170 small frames a second."""
    missed_heartbeats: int = 3
    """After so many intervals without a word the connection is dead."""
    opening_s: float = 10.0
    """From the websocket to the welcome; a slow line needs four round trips."""
    unproved: int = 1024
    """Connections that may be opening at the same time; a returning fleet waits its turn with jitter."""
    unproved_per_remote: int = 256
    """The same from one address: many nodes may share one, or come through one proxy."""
    probe_s: float = 3.0
    """A live connection answers a ping within this."""
    claim_again_s: float = 0.5
    """How often we ask whether another gateway has let go of a node."""
    held_ends: int = 4
    """Connections of one node that are kept open in an identity conflict."""
    write_every_s: float = 0.25
    """Four batches a second at most while batches take long: a storm is coalesced."""
    write_soon_s: float = 0.1
    """Ten while they are short: a change is on a page at once."""
    batch_nodes: int = 300
    """A write transaction stays around ten milliseconds, so that an operator never waits for it."""
    happenings: int = 64
    """Unwritten events and reports of one node before its connection is not read any more."""
    history_burst_bytes: float = 4 * 1024 * 1024
    """What a node may tell at once for its history, which is kept for long: all that it gathered in a long absence."""
    history_bytes_per_s: float = 16 * 1024
    """What it may go on telling: a node that floods is read more slowly, and the others hear nothing of it."""
    beat_s: float = 5.0
    """Heartbeat of the gateway's own row."""
    sweep_s: float = 5.0
    """Longest delay when nudges are lost."""
    url_refresh_s: float = 600.0
    """Signed image URLs hold for 15 minutes; a node that still downloads gets a new one before that."""
    close_s: float = 3.0
    """How long the other end may take to answer a close frame."""
    pages: int = 2000
    """Open browser pages."""
    page_topics: int = 50
    page_buffer_bytes: int = 64 * 1024
    """Unsent bytes at which a page is too slow: it is closed and comes back to fresh revisions."""
    node_topics_every_s: float = 0.1
    list_topics_every_s: float = 2.0
    page_sweep_s: float = 5.0
    page_ping_s: float = 20.0
    session_check_s: float = 30.0
    """How long a page may outlive its session."""


OPENING_BYTES = 64 * 1024
"""Largest frame of whoever has not proved itself: several times a join with all its labels."""
HISTORY_COST_BYTES = 512
"""What the shortest event costs to keep."""
MAX_QUEUE = 4
"""Received frames of a connection before its socket is not read any more."""
WRITE_LIMIT_BYTES = 16 * 1024
"""Unsent bytes of a connection above which sending waits."""
