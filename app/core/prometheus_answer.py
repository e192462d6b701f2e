"""What an answer of Prometheus's query API says of a gate. Pure.

The format is that of `/api/v1/query` in Prometheus's HTTP API: `status`, `data.resultType`, `data.result`; a sample is
`[unix seconds, "number as text"]`.
"""

from __future__ import annotations

import json
import math
from typing import Any

_SHOWN_CHARS = 160


def shut_by(body: bytes | bytearray) -> str | None:
    """Why the gate is shut: a clause about Prometheus; None: every sample is there and none is 0."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return "answers with something that is no JSON"
    if not isinstance(answer, dict):
        return "answers with JSON that is not of its query API"
    if answer.get("status") != "success":
        return f"refuses the query: {_short(answer.get('error') or 'it does not say why')}"
    if answer.get("warnings"):
        return f"warns that the answer may not be whole: {_short(answer['warnings'])}"
    data = answer.get("data")
    found = data.get("result") if isinstance(data, dict) else None
    kind = data.get("resultType") if isinstance(data, dict) else None
    if kind == "scalar":
        return _sample(found, "")
    if kind != "vector" or not isinstance(found, list):
        return f"answers with a {_short(kind or 'result without a type')}; a gate needs single samples"
    if not found:
        return "has no sample for the query"
    return next((said for each in found if (said := _entry(each)) is not None), None)


def refusal(status: int, body: bytes | bytearray) -> str:
    """Why the gate is shut when the answer was not 200."""
    if 300 <= status < 400:
        return "answers with a redirect, which is not followed"
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and answer.get("error"):
        return f"refuses the query: {_short(answer['error'])}"
    return f"answers with HTTP status {status}"


def _entry(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "answers with JSON that is not of its query API"
    labels = entry.get("metric")
    shown = ", ".join(f"{key}={value}" for key, value in labels.items()) if isinstance(labels, dict) else ""
    return _sample(entry.get("value"), f" for {_short(shown)}" if shown else "")


def _sample(sample: Any, whose: str) -> str | None:
    if not isinstance(sample, list) or len(sample) != 2 or not isinstance(sample[1], str):
        return f"answers without a number{whose}"
    try:
        number = float(sample[1])
    except ValueError:
        return f"answers with “{_short(sample[1])}”, which is no number{whose}"
    if math.isnan(number):
        return f"answers with NaN{whose}"
    return f"answers with 0{whose}" if number == 0 else None


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
