"""Asks the Prometheus gates of what is under way, on a thread of its own: admission never waits for a server."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import structlog

from app.core.group_policy import PrometheusGate
from app.core.holds import Hold, HoldCode
from app.services.admission import gates_in_use
from app.services.prometheus_gates import PrometheusGates
from app.store.database import Database

log = structlog.get_logger(__name__)

_ASK_S = 5.0
"""How often it looks whose answer is due."""


class Gatekeeper:
    """`holds` may be called on any thread. As long as nobody runs it every gate is shut: nobody has asked."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._gates: PrometheusGates | None = None

    def holds(self, gates: Iterable[PrometheusGate]) -> tuple[Hold, ...]:
        """One for each of these gates that is shut now."""
        if self._gates is not None:
            return self._gates.holds(gates)
        text = "health gate “{}” is shut: Prometheus has not been asked yet"
        return tuple(Hold(HoldCode.HEALTH_GATE, text.format(gate.name), gate.name) for gate in gates)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; a question under way is not waited for."""
        while not stop.is_set():
            self._ask()
            stop.wait(_ASK_S)
        if self._gates is not None:
            self._gates.close()

    def _ask(self) -> None:
        try:
            wanted = gates_in_use(self._db)
        except Exception as error:  # the database is away: the answers that there are grow stale, and shut
            log.warning("gates-not-known", error=str(error).splitlines()[0])
            return
        if wanted and self._gates is None:
            self._gates = PrometheusGates()
        if self._gates is not None:
            self._gates.refresh(wanted)
