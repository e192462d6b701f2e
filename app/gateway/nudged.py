"""Nudges from other threads and processes, handed over to the gateway's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from app.gateway.live import Live
from app.gateway.parts import Parts
from app.gateway.sweeps import Sweeps


def listener(parts: Parts, live: Live, sweeps: Sweeps) -> Callable[[frozenset[str]], None]:
    """For `Nudges.subscribe`: hands the topics over to the loop."""
    loop = asyncio.get_running_loop()

    def nudged(topics: frozenset[str]) -> None:
        live.changed(topics)
        of_nodes: dict[str, list[str]] = {"desired": [], "probe": []}
        for topic in topics:
            kind, _, node_id = topic.partition(":")
            if kind in of_nodes:
                of_nodes[kind].append(node_id)
        parts.dispatcher.look(of_nodes["desired"])
        for node_id in of_nodes["probe"]:
            sweeps.probe(node_id)

    def listen(topics: frozenset[str]) -> None:
        # A thread may be about to call us while the loop ends: then nobody is left who would want to know.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(nudged, topics)

    return listen
