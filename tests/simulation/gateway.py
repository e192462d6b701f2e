"""A gateway on a virtual clock: what app.gateway does between sockets and services, without sockets and tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.config import Settings
from app.ids import new_id
from app.services import connections, intake
from app.services.connections import Answer, Claim, End, Gone, Outlook, Verdict
from app.services.intake import Fate, Happening, Report, Sections
from app.store.database import Database
from sim.node import SimNode
from wire.messages import (
    UNSET,
    Ack,
    Desired,
    FromNode,
    FromServer,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    LeaseWait,
    NodeEvent,
    OperationReport,
    Status,
    Welcome,
)

SECTIONS = ("facts", "slots", "health", "placement", "activity")
UP_FOR_OFFLINE_S = 60.0
"""Not before this does a gateway call anybody offline: all could have come back to it."""


class Post(Protocol):
    """Carries messages to nodes, with the delays that a network has."""

    def __call__(self, line: Line, message: FromServer) -> None: ...


@dataclass(eq=False)
class Line:
    """One connection of a node. `said_at`: true time of the newest word that waits to be stored."""

    node: SimNode
    node_id: str
    connection_id: str
    heard_at: float
    open: bool = True
    said_at: float = 0.0
    sections: Sections | None = None
    happenings: list[Happening] = field(default_factory=list)
    sent_order: Desired | None = None
    sent_lease: LeaseGrant | LeaseWait | None = None


Known = Callable[[SimNode, float], None]


class Gateway:
    """`clock` is the server's wall time, `true` the run's. `known` is told of which node everything up to which true
    time is in the database. Whoever runs it calls `flush`, `look`, `beat` and `sweep` when they are due."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        clock: Callable[[], float],
        true: Callable[[], float],
        post: Post,
        known: Known,
    ) -> None:
        self._db, self._settings, self._clock, self._true = db, settings, clock, true
        self._post, self._known = post, known
        self.id = new_id("gateway")
        self.began = clock()
        self.lines: dict[str, Line] = {}
        self.to_look: dict[str, None] = {}
        self._gone: list[tuple[Line, float]] = []
        connections.start_gateway(db, self.id, "127.0.0.1:8090", self.began)

    # --- connections ----------------------------------------------------------------------------------------

    def connect(self, node: SimNode, node_id: str, server_key: str) -> Line | None:
        """A node that has proved itself; None when it has to come again."""
        (line,) = self.connect_all([(node, node_id)], server_key)
        return line

    def connect_all(self, callers: Sequence[tuple[SimNode, str]], server_key: str) -> list[Line | None]:
        """Different nodes at once, in one transaction."""
        if formers := [self.lines[node_id] for _, node_id in callers if node_id in self.lines]:
            for former in formers:
                self.lose(former)
            self._release()
        now = self._clock()
        claims = [self._claim(node, node_id, server_key, now) for node, node_id in callers]
        answers = connections.claim(self._db, claims, now)
        return [
            self._line(node, claim, answer) if answer.verdict is Verdict.CLAIMED else None
            for (node, _), claim, answer in zip(callers, claims, answers, strict=True)
        ]

    def _claim(self, node: SimNode, node_id: str, server_key: str, now: float) -> Claim:
        end = End("127.0.0.1", f"machine-{node_id}", f"sha256:{node.spec.number:064x}", node.body.boot_id, now)
        return Claim(node_id, self.id, new_id("conn"), end, server_key)

    def _line(self, node: SimNode, claim: Claim, answer: Answer) -> Line:
        line = Line(node, claim.node_id, claim.connection_id, claim.end.at)
        self.lines[claim.node_id] = line
        self._post(line, self._welcome(claim.node_id, answer))
        self.to_look[claim.node_id] = None
        return line

    def _welcome(self, node_id: str, answer: Answer) -> Welcome:
        return Welcome(
            node_id=node_id,
            name=answer.name,
            admission=answer.admission,
            gateway=self.id,
            heartbeat_s=30.0,
            minor=1,
            epoch=answer.epoch,
        )

    def lose(self, line: Line) -> None:
        """The connection is over, as seen from here; what it said before is stored first."""
        if line.open:
            line.open = False
            self._gone.append((line, self._true()))
            if self.lines.get(line.node_id) is line:
                del self.lines[line.node_id]

    # --- heard ----------------------------------------------------------------------------------------------

    def hear(self, line: Line, message: FromNode, said_at: float) -> None:
        line.heard_at = self._clock()
        line.said_at = max(line.said_at, said_at)
        match message:
            case Status():
                line.sections = line.sections or Sections()
                for name in SECTIONS:
                    if (section := getattr(message, name)) is not UNSET:
                        setattr(line.sections, name, section)
            case NodeEvent() | OperationReport() | LeaseRequest() | LeaseReturn():
                line.happenings.append(message)
            case _:
                pass

    @property
    def has_unwritten(self) -> bool:
        return bool(self._gone) or any(line.sections or line.happenings for line in self.lines.values())

    def flush(self) -> None:
        """Store what was said, then who has gone."""
        waiting = [*self.lines.values(), *(line for line, _ in self._gone)]
        taken: dict[str, tuple[Line, Report]] = {}
        for line in waiting:
            if (line.sections or line.happenings) and line.node_id not in taken:
                report = Report(
                    line.node_id, line.connection_id, line.heard_at, line.sections or Sections(), line.happenings
                )
                taken[line.node_id] = line, report
                line.sections, line.happenings = None, []
        if taken:
            self._store(list(taken.values()))
        self._release()

    def _store(self, taken: list[tuple[Line, Report]]) -> None:
        outcomes = intake.apply(self._db, [report for _, report in taken], self._clock())
        for (line, report), outcome in zip(taken, outcomes, strict=True):
            if outcome.fate is Fate.STORED:
                self._known(line.node, line.said_at)
                if outcome.acked is not None and line.open:
                    self._post(line, Ack(seq=outcome.acked))
                if any(isinstance(each, LeaseRequest) for each in report.happenings):
                    self.to_look[line.node_id] = None
            elif outcome.fate is Fate.SUPERSEDED:
                self.lose(line)
            else:
                raise AssertionError(f"a report of {line.node_id} was {outcome.fate}")

    def _release(self) -> None:
        gone, self._gone = self._gone, []
        if gone:
            ended = [Gone(line.node_id, line.connection_id, line.heard_at) for line, _ in gone]
            connections.release(self._db, ended)
            for line, at in gone:
                self._known(line.node, at)

    # --- told -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Tell nodes what is desired of them, and what became of their requests."""
        ids = [node_id for node_id in self.to_look if node_id in self.lines]
        self.to_look = {}
        if not ids:
            return
        for node_id, outlook in connections.outlooks(self._db, ids, self._settings, self._clock()).items():
            if (line := self.lines.get(node_id)) is not None:
                self._tell(line, outlook)

    def _tell(self, line: Line, outlook: Outlook) -> None:
        desired, lease = outlook.desired, outlook.lease
        if desired is not None and _is_news(desired, line.sent_order):
            line.sent_order = desired
            self._post(line, desired)
        if lease is not None and lease != line.sent_lease:
            self._post(line, lease)
        line.sent_lease = lease

    # --- now and then ---------------------------------------------------------------------------------------

    def beat(self) -> None:
        connections.beat(self._db, self.id, len(self.lines), self._clock())

    def sweep(self, offline_grace_s: float) -> None:
        """What lost nudges would have told, and who does not come back."""
        rows, _ = connections.standings(self._db, self.id)
        for row in rows:
            line = self.lines.get(row.id)
            if line is None or line.connection_id != row.connection_id:
                continue
            order = line.sent_order.order if line.sent_order is not None else None
            if order is None or row.order > (order.epoch, order.generation):
                self.to_look[row.id] = None
        now = self._clock()
        if now - self.began >= max(offline_grace_s, UP_FOR_OFFLINE_S):
            connections.turn_offline(self._db, now - offline_grace_s, now)

    def die(self) -> None:
        """With it end all its connections, also those whose other end has gone and that nobody has missed yet."""
        for line in self.lines.values():
            line.open = False

    def stop(self) -> None:
        """In order: what waits is stored, all connections end."""
        self.flush()
        for line in list(self.lines.values()):
            self.lose(line)
        self._release()
        connections.stop_gateway(self._db, self.id, self._clock())


def _is_news(desired: Desired, sent: Desired | None) -> bool:
    return sent is None or (desired != sent and desired.order >= sent.order)
