"""A group's policy as people type it: one text a field, durations by their own names beside the other fields. Pure.

soak_s=30m  canaries=5%  max_unavailable=2  windows="mon-fri 22:00-04:00 Europe/Berlin; sat 00:00-00:00 UTC"
prometheus="errors http://prometheus.example:9090 sum(rate(errors_total[5m])) < bool 3"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from app.core.errors import Invalid
from app.core.group_policy import Amount, GroupPolicy, PrometheusGate, Window
from app.core.policy import Policy
from app.core.policy_json import DAYS, FLEETS_OWN

TIMING = tuple(each.name for each in fields(Policy) if each.name not in FLEETS_OWN)
"""Durations that a group may have of its own."""
FIELDS = (*TIMING, *(each.name for each in fields(GroupPolicy) if each.name != "timing"))
"""In the order in which they are shown."""
_AMOUNTS = ("canaries", "max_unavailable", "failure_limit")
_FLAGS = ("one_domain_after_another", "health_gate")
_COUNTS = ("max_per_domain", "failure_least", "stage_parallel")
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_UNITS_B = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_DAILY = "daily"


def read_changes(texts: Mapping[str, str]) -> dict[str, Any]:
    """JSON for core.policy_json of typed fields; an empty text takes a field back to its default (None)."""
    changes: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in FIELDS:
            raise Invalid(name, f"A group's policy has no field “{name}”; it has {', '.join(FIELDS)}.")
        value = _read(name, text.strip()) if text.strip() else None
        if name in TIMING:
            changes.setdefault("timing", {})[name] = value
        else:
            changes[name] = value
    return changes


def field_texts(policy: GroupPolicy) -> dict[str, str]:
    """Every field as it would be typed; empty where that is its default."""
    shown = {name: duration_text(getattr(policy.timing, name)) for name in TIMING}
    return shown | {name: _text(name, getattr(policy, name)) for name in FIELDS if name not in TIMING}


def differences(before: GroupPolicy, after: GroupPolicy) -> list[tuple[str, str, str]]:
    """(field, as it would be typed before, and after) of the fields that differ."""
    texts, now = field_texts(before), field_texts(after)
    return [(name, texts[name], now[name]) for name in texts if texts[name] != now[name]]


def _read(name: str, text: str) -> Any:
    if name.endswith("_s") and name != "bandwidth_bytes_s":
        return duration_s(name, text)
    if name in _AMOUNTS:
        return _amount(name, text)
    if name in _FLAGS:
        return _flag(name, text)
    if name in _COUNTS:
        return _count(name, text)
    reader = _READERS.get(name)
    return reader(name, text) if reader is not None else text


def duration_s(name: str, text: str) -> float:
    """Seconds of a duration as typed: `90`, `90s`, `30m`, `2h`, `7d`; Invalid names the field."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(s|m|min|h|d)?", text, re.A)
    if found is None:
        raise Invalid(name, f"“{text}” is no duration such as 90s, 30m, 2h or 7d.")
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def _amount(name: str, text: str) -> dict[str, Any]:
    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,4})?) ?%", text, re.A)
    if found is not None:
        return {"share": round(float(found[1]) / 100, 8)}  # 0.07 % is 0.0007, not a hair more
    return {"count": _count(name, text, "a number of nodes such as 3, or a share such as 10%")}


def _count(name: str, text: str, what: str = "a whole number") -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.A):
        raise Invalid(name, f"“{text}” is not {what}.")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise Invalid(name, f"{name} is yes or no, not “{text}”.")
    return text.lower() == "yes"


def _octets(name: str, text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text, re.A)
    if found is None or found[2].upper() not in _UNITS_B:
        raise Invalid(name, f"“{text}” is no number of bytes a second such as 500000, 800 KiB or 10 MiB.")
    return int(found[1]) * _UNITS_B[found[2].upper()]


def _windows(name: str, text: str) -> list[dict[str, Any]]:
    return [_window(name, line) for line in _lines(text, ";\n")]


def _window(name: str, line: str) -> dict[str, Any]:
    found = re.fullmatch(r"(\S+)\s+([0-9:]+)\s*[-–]\s*([0-9:]+)\s+(\S+)", line)
    if found is None:
        raise Invalid(
            name, f"“{line}” is no window such as mon-fri 22:00-04:00 Europe/Berlin, or daily 02:00-04:00 UTC."
        )
    days, opens, closes, zone = found.groups()
    return {"days": _days(name, days.lower()), "opens": opens, "closes": closes, "zone": zone}


def _days(name: str, text: str) -> list[str]:
    """`daily`, `sat`, `mon,wed`, `mon-fri`, and `fri-mon` around the week's end."""
    if text == _DAILY:
        return list(DAYS)
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise Invalid(name, f"“{part}” is no day: {', '.join(DAYS)}, a range such as mon-fri, or daily.")
        start, end = DAYS.index(first), DAYS.index(last or first)
        days |= {place % 7 for place in range(start, end + 1 if start <= end else end + 8)}
    return [DAYS[place] for place in sorted(days)]


def _gates(name: str, text: str) -> list[dict[str, Any]]:
    return [_gate(name, line) for line in _lines(text, "\n")]


def _gate(name: str, line: str) -> dict[str, Any]:
    """`NAME ADDRESS [timeout=3s] QUERY`."""
    found = re.fullmatch(r"(\S+)\s+(\S+)\s+(?:timeout=(\S+)\s+)?(.+)", line)
    if found is None:
        raise Invalid(name, f"“{line}” is no gate: a name, Prometheus's address, and a query, on one line.")
    gate_name, url, timeout, query = found.groups()
    gate: dict[str, Any] = {"name": gate_name, "url": url, "query": query}
    return gate | ({"timeout_s": duration_s(name, timeout)} if timeout else {})


def _lines(text: str, ends: str) -> list[str]:
    return [line.strip() for line in re.split(f"[{ends}]", text) if line.strip()]


_READERS: dict[str, Callable[[str, str], Any]] = {
    "windows": _windows,
    "prometheus": _gates,
    "mirrors": lambda name, text: text.split(),
    "bandwidth_bytes_s": _octets,
}


def _text(name: str, value: Any) -> str:
    if name == "bandwidth_bytes_s":
        return _octets_text(value)
    match value:
        case bool():
            return "yes" if value else "no"
        case Amount():
            return str(value.count) if value.share is None else f"{value.share * 100:.6g}%"
        case tuple():
            return "\n".join(_entry_text(each) for each in value)
    return duration_text(value) if isinstance(value, float) else str(value)


def _entry_text(entry: Any) -> str:
    match entry:
        case Window():
            return f"{_days_text(entry.days)} {entry.opens}-{entry.closes} {entry.zone}"
        case PrometheusGate():
            usual = PrometheusGate("", "", "").timeout_s
            timeout = f"timeout={duration_text(entry.timeout_s)} " if entry.timeout_s != usual else ""
            return f"{entry.name} {entry.url} {timeout}{entry.query}"
    return str(entry)


def _days_text(days: frozenset[int]) -> str:
    if len(days) == 7:
        return _DAILY
    first, last = min(days), max(days)
    if len(days) > 2 and last - first + 1 == len(days):
        return f"{DAYS[first]}-{DAYS[last]}"
    return ",".join(DAYS[day] for day in sorted(days))


def _octets_text(octets: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if octets and octets % _UNITS_B[unit.upper()] == 0:
            return f"{octets // _UNITS_B[unit.upper()]} {unit}"
    return str(octets)


def duration_text(seconds: float) -> str:
    """As it is typed, in the largest unit that leaves no rest."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS_S[unit] == 0:
            return f"{seconds / _UNITS_S[unit]:.15g}{unit}"
    return f"{seconds:.15g}s"
