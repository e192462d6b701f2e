from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given

from app.core.errors import Invalid
from app.core.group_policy import Amount, GroupPolicy
from app.core.policy import Policy
from app.core.policy_json import FLEETS_OWN, policy_from_builtins
from app.core.policy_text import FIELDS, field_texts, read_changes
from tests.core.policy_samples import policies


@given(policies)
def test_any_policy_is_read_as_it_is_shown(policy: GroupPolicy) -> None:
    usual = {name: getattr(Policy(), name) for name in FLEETS_OWN}
    policy = replace(policy, timing=replace(policy.timing, **usual))
    shown = field_texts(policy)
    assert shown.keys() == set(FIELDS)
    said = {name: value for name, value in read_changes(shown).items() if value is not None}
    assert policy_from_builtins(said) == policy


def test_every_field_can_be_typed() -> None:
    of_groups = {each.name for each in fields(GroupPolicy)} - {"timing"}
    assert set(FIELDS) == of_groups | ({each.name for each in fields(Policy)} - set(FLEETS_OWN))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("canary_soak_s", "90", 90.0),
        ("canary_soak_s", "1.5h", 5400.0),
        ("canary_soak_s", "30 min", 1800.0),
        ("minimum_age_s", "7d", 7 * 86_400.0),
        ("canaries", "5 %", {"share": 0.05}),
        ("canaries", "12", {"count": 12}),
        ("health_gate", "No", False),
        ("stage_parallel", "4", 4),
        ("bandwidth_bytes_s", "10 MiB", 10 << 20),
        ("bandwidth_bytes_s", "500000", 500_000),
        ("mirrors", "http://a\n http://b", ["http://a", "http://b"]),
        ("drain", " cordon ", "cordon"),
        ("follow", "", None),
    ],
)
def test_a_typed_field(name: str, text: str, value: object) -> None:
    assert read_changes({name: text}) == {name: value}


def test_durations_stand_under_timing() -> None:
    assert read_changes({"soak_s": "30m", "confirm_s": ""}) == {"timing": {"soak_s": 1800.0, "confirm_s": None}}


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("daily", "mon tue wed thu fri sat sun"),
        ("Mon-Fri", "mon tue wed thu fri"),
        ("fri-mon", "mon fri sat sun"),
        ("sun-mon", "mon sun"),
        ("mon,wed-thu", "mon wed thu"),
        ("sat", "sat"),
    ],
)
def test_days_of_a_window(text: str, days: str) -> None:
    typed = f"{text} 22:00-04:00 Europe/Berlin; \n"
    expected = {"days": days.split(), "opens": "22:00", "closes": "04:00", "zone": "Europe/Berlin"}
    assert read_changes({"windows": typed}) == {"windows": [expected]}


def test_a_gate_with_its_time_limit() -> None:
    (gate,) = read_changes({"prometheus": "errors http://p:9090 timeout=3s sum(x) < bool 3"})["prometheus"]
    assert gate == {"name": "errors", "url": "http://p:9090", "query": "sum(x) < bool 3", "timeout_s": 3.0}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("speed", "1"),
        ("timing", "1"),
        ("offline_grace_s", "1"),
        ("soak_s", "soon"),
        ("soak_s", "-1s"),
        ("canaries", "five"),
        ("canaries", "-5%"),
        ("health_gate", "on"),
        ("max_per_domain", "1.5"),
        ("bandwidth_bytes_s", "10 Mbit"),
        ("windows", "at night"),
        ("windows", "weekdays 22:00-04:00 UTC"),
        ("windows", "mon-tuesday 22:00-04:00 UTC"),
        ("windows", "mon 22:00-04:00"),
        ("prometheus", "http://p:9090"),
        ("prometheus", "errors http://p:9090 timeout=soon up"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_changes({name: text})
    assert refused.value.field == name


def test_a_share_of_all() -> None:
    assert policy_from_builtins(read_changes({"max_unavailable": "100%"})).max_unavailable == Amount(share=1.0)
