"""A group's policy as JSON and back: only what differs from the defaults, or all of it where it is frozen. Pure.

{"timing": {"soak_s": 1800}, "canaries": {"share": 0.05}, "max_unavailable": {"count": 2},
 "windows": [{"days": ["mon", "fri"], "opens": "22:00", "closes": "04:00", "zone": "Europe/Berlin"}],
 "prometheus": [{"name": "errors", "url": "http://prometheus.example:9090", "query": "…", "timeout_s": 5}]}
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from app.core.errors import Invalid
from app.core.group_policy import Amount, Follow, GroupPolicy, OnFailure, PrometheusGate, Window
from app.core.labels import is_label_key
from app.core.policy import Policy
from app.core.windows import is_zone, minute_of_day

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONGEST_S = 365 * 86_400.0
"""No duration may be longer: a slip of units is refused."""
_MOST_COUNT = 1_000_000
"""More nodes than any fleet has."""
_MOST_BYTES = 10**12
_MOST_ENTRIES = 50
_MOST_CHARS = 2_000
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_NEVER_ZERO = ("confirm_s", "stage_deadline_s", "reboot_deadline_s", "lease_s")
"""Durations of 0 with which no update could ever succeed."""

FLEETS_OWN = ("offline_grace_s", "reconnect_allowance_s")
"""Of connections, which belong to no group."""

Reader = Callable[[str, Any], Any]
"""(field as errors name it, JSON value) → the value, or Invalid."""


def policy_to_builtins(policy: GroupPolicy, *, whole: bool = False) -> dict[str, Any]:
    """JSON of the fields that differ from the defaults; `whole`: of all, so that later defaults change nothing."""
    plain = GroupPolicy()
    found = {
        each.name: _built(getattr(policy, each.name))
        for each in fields(GroupPolicy)
        if whole or getattr(policy, each.name) != getattr(plain, each.name)
    }
    if "timing" in found and not whole:
        usual = asdict(plain.timing)
        found["timing"] = {name: value for name, value in found["timing"].items() if value != usual[name]}
    return found


def policy_from_builtins(stored: Mapping[str, Any], timing: Policy | None = None) -> GroupPolicy:
    """The policy of such JSON; `timing`: the fleet's, for durations that it does not name. Invalid names the field."""
    values: dict[str, Any] = {"timing": timing or Policy()}
    for name, value in _mapping("policy", stored).items():
        if name not in _READERS:
            raise Invalid(name, f"A group's policy has no field “{name}”; it has {', '.join(sorted(_READERS))}.")
        values[name] = _timing(name, value, timing or Policy()) if name == "timing" else _READERS[name](name, value)
    policy = GroupPolicy(**values)
    if not policy.domain_label and (policy.max_per_domain or policy.one_domain_after_another):
        raise Invalid("domain_label", "Limits of failure domains need the label that names the domain, such as zone.")
    return policy


def checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What an operator says of a group, in its normal form, with exactly the fields that it names; Invalid as above."""
    for name in FLEETS_OWN:
        if isinstance(changes.get("timing"), Mapping) and name in changes["timing"]:
            raise Invalid(f"timing.{name}", f"{name} is the fleet's own: a group cannot have another.")
    whole = policy_to_builtins(policy_from_builtins(changes), whole=True)
    found = {name: whole[name] for name in changes}
    if "timing" in changes:
        found["timing"] = {name: whole["timing"][name] for name in changes["timing"]}
    return found


def with_changes(policy: GroupPolicy, changes: Mapping[str, Any]) -> GroupPolicy:
    """The policy with other values of the fields that `changes` (JSON as above) names; Invalid as above."""
    whole = policy_to_builtins(policy, whole=True)
    timing = {**whole["timing"], **changes.get("timing", {})}
    return policy_from_builtins({**whole, **changes, "timing": timing})


def changed_fields(policy: GroupPolicy, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What of `changes` is not as the policy has it already, in its normal form; Invalid as above."""
    before = policy_to_builtins(policy, whole=True)
    after = policy_to_builtins(with_changes(policy, changes), whole=True)
    found = {name: after[name] for name in changes if name != "timing" and after[name] != before[name]}
    timing = {
        name: after["timing"][name]
        for name in changes.get("timing", {})
        if after["timing"][name] != before["timing"][name]
    }
    return found | ({"timing": timing} if timing else {})


def _built(value: Any) -> Any:
    match value:
        case StrEnum():
            return value.value
        case Amount():
            return {"count": value.count} if value.share is None else {"share": value.share}
        case Window():
            days = [DAYS[day] for day in sorted(value.days)]
            return {"days": days, "opens": value.opens, "closes": value.closes, "zone": value.zone}
        case Policy() | PrometheusGate():
            return asdict(value)
        case tuple():
            return [_built(each) for each in value]
    return value


def _mapping(field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Invalid(field, f"{field} must have named fields, not {_shown(value)}.")
    return value


def _exactly(field: str, value: Any, required: set[str], optional: frozenset[str] = frozenset()) -> Mapping[str, Any]:
    found = _mapping(field, value)
    for name in sorted(found.keys() - required - optional):
        raise Invalid(f"{field}.{name}", f"{field} has no field “{name}”.")
    for name in sorted(required - found.keys()):
        raise Invalid(f"{field}.{name}", f"{field} needs “{name}”.")
    return found


def _timing(field: str, value: Any, usual: Policy) -> Policy:
    known = asdict(usual)
    for name, seconds in _mapping(field, value).items():
        if name not in known:
            raise Invalid(f"{field}.{name}", f"There is no duration “{name}”; there are {', '.join(sorted(known))}.")
        known[name] = _seconds(f"{field}.{name}", seconds, least=1 if name in _NEVER_ZERO else 0)
    return Policy(**known)


def _seconds(field: str, value: Any, *, least: float = 0.0, most: float = LONGEST_S) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value <= most:
        raise Invalid(field, f"{field} must be from {least:g} to {most:.15g} seconds, not {_shown(value)}.")
    return float(value)


def _duration(least: float = 0.0) -> Reader:
    return lambda field, value: _seconds(field, value, least=least)


def _whole(least: int, most: int = _MOST_COUNT) -> Reader:
    def read(field: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Invalid(field, f"{field} must be a whole number from {least} to {most}, not {_shown(value)}.")
        return value

    return read


def _amount(least: int) -> Reader:
    def read(field: str, value: Any) -> Amount:
        found = _exactly(field, value, set(), frozenset({"count", "share"}))
        if len(found) != 1:
            raise Invalid(field, f"{field} is either a count of nodes or a share of them.")
        if "count" in found:
            return Amount(count=_whole(least)(f"{field}.count", found["count"]))
        share = found["share"]
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise Invalid(f"{field}.share", f"{field} as a share is above 0, at most 1 (100 %), not {_shown(share)}.")
        return Amount(share=float(share))

    return read


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid(field, f"{field} is yes or no, not {_shown(value)}.")
    return value


def _one_of(words: type[StrEnum]) -> Reader:
    def read(field: str, value: Any) -> StrEnum:
        if not isinstance(value, str) or value not in list(words):
            raise Invalid(field, f"{field} is one of {', '.join(words)}, not {_shown(value)}.")
        return words(value)

    return read


def _text(field: str, value: Any, most: int = _MOST_CHARS) -> str:
    if not isinstance(value, str) or len(value) > most or not value.replace("\n", " ").isprintable():
        raise Invalid(field, f"{field} must be printable text of at most {most} characters.")
    return value.strip()


def _label(field: str, value: Any) -> str:
    key = _text(field, value)
    if key and not is_label_key(key):
        raise Invalid(field, f"“{key}” is no label key, such as zone.")
    return key


def _word(field: str, value: Any) -> str:
    word = _text(field, value)
    if word and not _WORD.match(word):
        raise Invalid(field, f"“{word}” is no name: letters, digits and . _ - , at most 64.")
    return word


def _address(field: str, value: Any) -> str:
    """Of a server that is asked: http or https, no account in it."""
    text = _text(field, value)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", text):
        raise Invalid(field, f"“{text}” is no http:// or https:// address.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Invalid(field, f"“{text}” must have no account, query or fragment: it is a base address.")
    return text.rstrip("/")


def _entries(read: Reader) -> Reader:
    def read_all(field: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) > _MOST_ENTRIES:
            raise Invalid(field, f"{field} is a list of at most {_MOST_ENTRIES} entries.")
        return tuple(read(f"{field}.{place}", each) for place, each in enumerate(value))

    return read_all


def _window(field: str, value: Any) -> Window:
    found = _exactly(field, value, {"days", "opens", "closes", "zone"})
    for name in ("opens", "closes"):
        if not isinstance(found[name], str) or minute_of_day(found[name]) is None:
            raise Invalid(f"{field}.{name}", f"{_shown(found[name])} is no time such as 22:30 (00:00 to 23:59).")
    days = found["days"]
    if not isinstance(days, list | tuple) or not days or not all(day in DAYS for day in days):
        raise Invalid(f"{field}.days", f"The days of a window are one or more of {', '.join(DAYS)}.")
    if not isinstance(found["zone"], str) or not is_zone(found["zone"]):
        hint = "Use an IANA name such as Europe/Berlin or UTC."
        raise Invalid(f"{field}.zone", f"{_shown(found['zone'])} is no time zone that is known here. {hint}")
    return Window(frozenset(map(DAYS.index, days)), found["opens"], found["closes"], found["zone"])


def _gate(field: str, value: Any) -> PrometheusGate:
    found = _exactly(field, value, {"name", "url", "query"}, frozenset({"timeout_s"}))
    name, query = _word(f"{field}.name", found["name"]), _text(f"{field}.query", found["query"])
    for part, text in (("name", name), ("query", query)):
        if not text:
            raise Invalid(f"{field}.{part}", f"A Prometheus gate needs a {part}.")
    gate = PrometheusGate(name, _address(f"{field}.url", found["url"]), query)
    timeout = _seconds(f"{field}.timeout_s", found.get("timeout_s", gate.timeout_s), least=0.1, most=60)
    return replace(gate, timeout_s=timeout)


def _gates(field: str, value: Any) -> tuple[PrometheusGate, ...]:
    gates: tuple[PrometheusGate, ...] = _entries(_gate)(field, value)
    if len({gate.name for gate in gates}) != len(gates):
        raise Invalid(field, "Two Prometheus gates have the same name.")
    return gates


def _shown(value: Any) -> str:
    text = f"“{value}”" if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


_READERS: dict[str, Reader] = {
    "timing": lambda field, value: _timing(field, value, Policy()),
    "follow": _one_of(Follow),
    "canaries": _amount(0),
    "canary_soak_s": _duration(),
    "max_unavailable": _amount(1),
    "domain_label": _label,
    "max_per_domain": _whole(0),
    "one_domain_after_another": _flag,
    "failure_limit": _amount(0),
    "failure_least": _whole(0),
    "on_failure": _one_of(OnFailure),
    "windows": _entries(_window),
    "minimum_age_s": _duration(),
    "absent_after_s": _duration(60),
    "health_gate": _flag,
    "prometheus": _gates,
    "stage_parallel": _whole(1),
    "stage_jitter_s": _duration(),
    "drain": _word,
    "drain_s": _duration(1),
    "mirrors": _entries(_address),
    "bandwidth_bytes_s": _whole(0, _MOST_BYTES),
}
"""Every field of GroupPolicy."""
