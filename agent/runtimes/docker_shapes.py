"""What a Docker-compatible engine says of its containers, decoded and put into our words. Pure.

Shapes of the Engine API 1.41 and later, as Docker and Podman send them; whatever differs in type is refused,
fields that we do not know are ignored.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from agent.runtimes.services import service_of
from wire.limits import CONTAINERS
from wire.messages import Container

SETTLED_AFTER_S = 10.0
"""Docker itself takes a container as started after it was up for ten seconds, and resets its back-off."""

LOOPING_AFTER_RESTARTS = 3
"""One restart is an incident, two may be the same one; the third within a start is a loop."""

STOP_CODES = frozenset({0, 130, 137, 143})
"""Exit codes of a process that was asked to stop, or killed after not having listened."""

_STATES = {
    "stopped": "exited",  # Podman's word until it has cleaned up
    "stopping": "running",  # Docker says running until the process is gone
    "configured": "created",
    "initialized": "created",
}
_HEALTH_TEXT = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)")
_HEALTH_WORDS = frozenset({"starting", "healthy", "unhealthy"})

T = TypeVar("T")


class ShapeError(Exception):
    """The engine sent something that is not the API's shape. Field: text (half a sentence)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _Shape(msgspec.Struct, frozen=True, rename="pascal"):
    """Base: field names as the API spells them."""


class HealthShape(_Shape, frozen=True):
    status: str = ""


class Listed(_Shape, frozen=True):
    """One item of /containers/json."""

    id: str
    state: str
    names: list[str] | None = None
    image: str = ""
    status: str = ""
    labels: dict[str, str] | None = None
    health: HealthShape | None = None
    """Only from API 1.52 on; before, the text of `status` ends with it (Docker) or not (Podman)."""

    @property
    def name(self) -> str:
        """The container's own name; links of other containers to it have a second slash."""
        names = self.names or []
        own = next((name for name in names if "/" not in name.removeprefix("/")), "")
        return (own or (names[0] if names else self.id[:12])).removeprefix("/")

    def health_word(self) -> str:
        """starting, healthy, unhealthy, or empty when the list does not say."""
        if self.health is not None and self.health.status in _HEALTH_WORDS:
            return self.health.status
        match = _HEALTH_TEXT.search(self.status)
        return match[1] if match else ""


class StateShape(_Shape, frozen=True):
    status: str = ""
    error: str = ""
    exit_code: int = 0
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    started_at: str = ""
    health: HealthShape | None = None


class RestartPolicyShape(_Shape, frozen=True):
    name: str = ""


class HostConfigShape(_Shape, frozen=True):
    restart_policy: RestartPolicyShape | None = None


class ConfigShape(_Shape, frozen=True):
    healthcheck: dict[str, Any] | None = None


class Inspected(_Shape, frozen=True):
    """The part of /containers/ID/json that the list does not carry."""

    id: str
    state: StateShape
    restart_count: int = 0
    host_config: HostConfigShape | None = None
    config: ConfigShape | None = None

    @property
    def policy(self) -> str:
        """no, always, unless-stopped or on-failure."""
        restart = self.host_config.restart_policy if self.host_config else None
        return (restart.name if restart else "") or "no"

    @property
    def has_health_check(self) -> bool:
        if self.config is not None and self.config.healthcheck:
            return True
        return self.state.health is not None and self.state.health.status in _HEALTH_WORDS


class Event(msgspec.Struct, frozen=True):
    """One object of the /events stream; `health_status: healthy` is an action with its outcome."""

    type: str = msgspec.field(default="", name="Type")
    action: str = msgspec.field(default="", name="Action")
    id: str = ""
    actor: dict[str, Any] | None = msgspec.field(default=None, name="Actor")

    @property
    def container_id(self) -> str:
        actor_id = (self.actor or {}).get("ID", "")
        return actor_id if isinstance(actor_id, str) and actor_id else self.id


_IRRELEVANT_ACTIONS = ("exec_", "attach", "top", "resize", "export", "copy", "archive-path", "extract-to-dir")


def changes_placement(event: Event) -> bool:
    """Whether the placement may read differently after this event.

    Health checks run by exec; Podman announces their outcome before it is written down, and says `exec_died`
    (Docker: `exec_die`) afterwards, so that one counts.
    """
    if event.type not in ("container", ""):
        return False
    return event.action == "exec_died" or not event.action.startswith(_IRRELEVANT_ACTIONS)


def parse_list(body: bytes) -> list[Listed]:
    listed = _decode(body, list[Listed], "list of containers")
    if len(listed) > CONTAINERS:
        raise ShapeError(f"it lists {len(listed)} containers, more than {CONTAINERS}")
    return listed


def parse_inspect(body: bytes) -> Inspected:
    return _decode(body, Inspected, "description of a container")


def parse_event(line: bytes) -> Event:
    return _decode(line, Event, "event")


def error_message(body: bytes) -> str:
    """What an error answer says, in at most 200 characters; empty when it says nothing readable."""
    try:
        message = _decode(body, dict[str, Any], "error").get("message", "")
    except ShapeError:
        return ""
    return " ".join(str(message).split())[:200]


def _decode(body: bytes, shape: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ShapeError(f"its {what} is not what the API promises ({error})") from error


def placed(listed: Listed, inspected: Inspected, now: float) -> Container | None:
    """The container as the wire says it; None for those that neither run nor should run.

    `now` is Unix seconds by the clock that the engine uses too.
    """
    labels = listed.labels or {}
    service = service_of(listed.name, labels, listed.image)
    state = _state(listed, inspected, now)
    if service is None or state is None:
        return None
    return Container(
        id=listed.id,
        name=listed.name,
        image=listed.image,
        service=service.service,
        scope=service.scope,
        state=state,
        health=listed.health_word() or _inspected_health(inspected),
        started_at=parse_time(inspected.state.started_at),
        replicas=service.replicas,
        per_node=service.per_node,
    )


def _state(listed: Listed, inspected: Inspected, now: float) -> str | None:
    state = _STATES.get(listed.state, listed.state)
    if state == "running":
        return "restarting" if _loops(inspected, now) else state
    if state in ("paused", "restarting"):
        return state
    return state if should_run(state, inspected) else None


def _loops(inspected: Inspected, now: float) -> bool:
    """Podman restarts without a pause and so never says `restarting`: the count and the start time do."""
    started = parse_time(inspected.state.started_at)
    if started is None or inspected.restart_count < LOOPING_AFTER_RESTARTS:
        return False
    return 0 <= now - started < SETTLED_AFTER_S


def should_run(state: str, inspected: Inspected) -> bool:
    """Whether a container that does not run is one that its engine should have restarted.

    With `unless-stopped` one that was stopped by hand shall stay down, and the API does not tell a stop by
    hand from an end by signal: those exit codes are believed. `always` means always.
    """
    failed = bool(inspected.state.error) or inspected.state.oom_killed
    if state == "created":  # only created is no failure; a start that failed leaves its error
        return failed and inspected.policy != "no"
    if state not in ("exited", "dead"):
        return False
    match inspected.policy:
        case "always":
            return True
        case "unless-stopped":
            return failed or inspected.state.exit_code not in STOP_CODES
        case "on-failure":
            return failed or inspected.state.exit_code != 0
        case _:
            return False


def _inspected_health(inspected: Inspected) -> str:
    health = inspected.state.health
    return health.status if health is not None and health.status in _HEALTH_WORDS else "none"


def parse_time(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None for the year 1 (never), the year 9999 and what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1970 <= moment.year < 9999:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
