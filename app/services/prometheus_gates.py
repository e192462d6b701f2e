"""Prometheus gates: asks their queries, keeps the answers for a while, says which gates are shut.

A gate that cannot be asked is shut: it stops activation, and only that (rules 6 and 7).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import httpx2

from app.core.group_policy import PrometheusGate
from app.core.holds import Hold, HoldCode
from app.core.prometheus_answer import refusal, shut_by

KEPT_S = 10.0
"""An answer is taken for this long: rules of Prometheus are seldom evaluated more often."""
STALE_S = 60.0
"""An older one is none: nobody asks any more, or the server takes that long."""
_MOST_BYTES = 1 << 20
"""Some thousand samples: a gate's query aggregates."""
_AT_ONCE = 8
_PATH = "/api/v1/query"


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    """When it was asked for, on the clock of the gates."""
    shut: str | None
    """Why it is shut; None: open."""


class PrometheusGates:
    """One for a process: `refresh` asks and may take as long as the slowest gate's time limit; `holds` never waits.

    Both may be called from different threads. `clock`: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[PrometheusGate, _Answer] = {}
        self._asking: dict[PrometheusGate, Future[None]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="prometheus")
        # No proxy of the environment: the address that an operator wrote is the one that is asked.
        self._client = httpx2.Client(follow_redirects=False, trust_env=False)

    def refresh(self, gates: Iterable[PrometheusGate]) -> None:
        """Ask the gates whose answer is older than KEPT_S; answers of gates that are not named are forgotten."""
        wanted = set(gates)
        with self._lock:
            self._answers = {gate: answer for gate, answer in self._answers.items() if gate in wanted}
            for gate in sorted(wanted, key=lambda each: (each.url, each.name, each.query)):
                if gate not in self._asking and not self._fresh(gate, KEPT_S):
                    self._asking[gate] = self._pool.submit(self._ask, gate)
            asking = {gate: future for gate, future in self._asking.items() if gate in wanted}
        if asking:
            wait(asking.values(), timeout=max(gate.timeout_s for gate in asking) + 1)

    def holds(self, gates: Iterable[PrometheusGate]) -> tuple[Hold, ...]:
        """One for each gate that is shut, by the newest answers."""
        with self._lock:
            said = [(gate, self._said(gate)) for gate in gates]
        return tuple(
            Hold(HoldCode.HEALTH_GATE, f"health gate “{gate.name}” is shut: {why}", subject=gate.name)
            for gate, why in said
            if why is not None
        )

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _said(self, gate: PrometheusGate) -> str | None:
        answer = self._answers.get(gate)
        if answer is None:
            return "Prometheus has not been asked yet"
        if not self._fresh(gate, STALE_S):
            return "Prometheus has not answered for a minute"
        return None if answer.shut is None else f"Prometheus {answer.shut}"

    def _fresh(self, gate: PrometheusGate, age_s: float) -> bool:
        answer = self._answers.get(gate)
        return answer is not None and self._clock() - answer.at < age_s

    def _ask(self, gate: PrometheusGate) -> None:
        asked_at = self._clock()
        shut: str | None = "could not be asked"
        try:
            shut = self._query(gate)
        finally:
            with self._lock:
                self._asking.pop(gate, None)
                self._answers[gate] = _Answer(asked_at, shut)

    def _query(self, gate: PrometheusGate) -> str | None:
        """Why the gate is shut now; None: it is open."""
        slow = f"does not answer within {gate.timeout_s:g} s"
        deadline = time.monotonic() + gate.timeout_s
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        params = {"query": gate.query, "timeout": f"{gate.timeout_s:g}s"}
        try:
            with self._client.stream(
                "GET", gate.url + _PATH, params=params, headers=headers, timeout=gate.timeout_s
            ) as response:
                body = bytearray()
                for piece in response.iter_raw():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        return "answers with more than 1 MiB; the query must aggregate"
                    if time.monotonic() > deadline:
                        return slow
                return shut_by(body) if response.status_code == 200 else refusal(response.status_code, body)
        except httpx2.TimeoutException:
            return slow
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return f"cannot be reached: {' '.join(str(error).split()) or type(error).__name__}"
