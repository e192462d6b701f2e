from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.prometheus_answer import refusal, shut_by


def vector(*values: object, kind: str = "vector") -> bytes:
    result = [{"metric": {"job": "db", "zone": "a"}, "value": [1.0, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def scalar(value: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1.0, value]}}).encode()


@pytest.mark.parametrize("body", [vector("1"), vector("0.5", "-2", "+Inf"), scalar("3")])
def test_samples_that_are_not_0_open(body: bytes) -> None:
    assert shut_by(body) is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (vector(), "has no sample"),
        (vector("1", "0"), "answers with 0 for job=db, zone=a"),
        (vector("-0.0"), "answers with 0"),
        (vector("NaN"), "NaN"),
        (vector("1", "many"), "no number"),
        (vector(1), "without a number"),
        (scalar("0"), "answers with 0"),
        (vector("1", kind="matrix"), "matrix; a gate needs single samples"),
        (vector("1", kind="string"), "string; a gate needs single samples"),
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "not of its query API"),
        (b"{}", "refuses the query: it does not say why"),
        (b'{"status": "error", "error": "parse error at\\nchar 3"}', "refuses the query: parse error at char 3"),
        (b'{"status": "success"}', "without a type"),
        (b'{"status": "success", "data": {"resultType": "vector"}}', "single samples"),
        (b'{"status": "success", "data": {"resultType": "vector", "result": [1]}}', "not of its query API"),
        (
            b'{"status": "success", "warnings": ["a store is away"], "data": {"resultType": "vector", "result": []}}',
            "may not be whole: ['a store is away']",
        ),
    ],
)
def test_everything_else_shuts_and_says_why(body: bytes, says: str) -> None:
    assert says in (shut_by(body) or "open")


def test_a_sample_without_a_number_of_its_own_shuts() -> None:
    histogram = {"metric": {}, "histogram": [1.0, {"count": "5"}]}
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": [histogram]}})
    assert shut_by(body.encode()) == "answers without a number"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (302, b"", "redirect"),
        (503, b"Service Unavailable", "HTTP status 503"),
        (400, b'{"status": "error", "error": "unknown function"}', "refuses the query: unknown function"),
        (404, b"[]", "HTTP status 404"),
    ],
)
def test_refusals(status: int, body: bytes, says: str) -> None:
    assert says in refusal(status, body)


def test_words_of_others_are_short() -> None:
    body = json.dumps({"status": "error", "error": "x" * 10_000}).encode()
    assert len(shut_by(body) or "") < 300 and len(refusal(400, body)) < 300


anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["status", "data", "resultType", "result", "value", "metric"]), inner),
    ),
    max_leaves=12,
)


@given(anything, st.sampled_from(["vector", "scalar", "matrix"]))
def test_no_json_opens_by_its_strangeness(result: Any, kind: str) -> None:
    body = {"status": "success", "data": {"resultType": kind, "result": result}}
    found = shut_by(json.dumps(body).encode())
    if found is None:
        samples = [result] if kind == "scalar" else [each["value"] for each in result]
        assert samples and all(float(sample[1]) != 0 for sample in samples)
    assert shut_by(json.dumps(result).encode()) is not None
