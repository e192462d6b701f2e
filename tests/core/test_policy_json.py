from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given

from app.core.errors import Invalid
from app.core.group_policy import Amount, GroupPolicy, PrometheusGate, Window
from app.core.policy import Policy
from app.core.policy_json import changed_fields, checked, policy_from_builtins, policy_to_builtins, with_changes
from tests.core.policy_samples import policies

WINDOW = {"days": ["fri", "mon"], "opens": "22:00", "closes": "04:00", "zone": "Europe/Berlin"}
GATE = {"name": "errors", "url": "http://prometheus.example:9090/", "query": "up"}


@given(policies)
def test_any_policy_comes_back_from_json(policy: GroupPolicy) -> None:
    stored = json.loads(json.dumps(policy_to_builtins(policy)))
    assert policy_from_builtins(stored) == policy
    whole = json.loads(json.dumps(policy_to_builtins(policy, whole=True)))
    assert whole.keys() == {each.name for each in fields(GroupPolicy)}
    assert policy_from_builtins(whole, Policy(soak_s=1.0)) == policy


def test_only_what_differs_is_stored() -> None:
    assert policy_to_builtins(GroupPolicy()) == {}
    policy = GroupPolicy(timing=Policy(soak_s=60.0), canaries=Amount(share=0.1))
    assert policy_to_builtins(policy) == {"timing": {"soak_s": 60.0}, "canaries": {"share": 0.1}}


def test_what_is_changed_is_what_differs() -> None:
    usual = GroupPolicy(timing=Policy(soak_s=20.0))
    typed = {"canaries": {"count": 1}, "timing": {"soak_s": 20.0, "confirm_s": 61.0}, "failure_least": 3}
    own = changed_fields(usual, typed)
    assert own == {"timing": {"confirm_s": 61.0}, "failure_least": 3}
    other = GroupPolicy(timing=Policy(soak_s=40.0), canaries=Amount(count=3))
    found = with_changes(other, own)
    assert found == replace(other, timing=replace(other.timing, confirm_s=61.0), failure_least=3)
    with pytest.raises(Invalid, match="label"):
        with_changes(usual, {"one_domain_after_another": True})


def test_durations_that_a_group_does_not_name_are_the_fleets() -> None:
    fleets = Policy(soak_s=20.0, confirm_s=30.0)
    found = policy_from_builtins({"timing": {"confirm_s": 40}}, fleets)
    assert found.timing == replace(fleets, confirm_s=40.0)
    assert policy_from_builtins({}, fleets).timing == fleets


def test_what_is_said_keeps_its_fields_in_normal_form() -> None:
    said = {"windows": [WINDOW], "timing": {"soak_s": 600}, "prometheus": [GATE], "stage_parallel": 20}
    assert checked(said) == {
        "windows": [WINDOW | {"days": ["mon", "fri"]}],
        "timing": {"soak_s": 600.0},
        "prometheus": [GATE | {"url": "http://prometheus.example:9090", "timeout_s": 5.0}],
        "stage_parallel": 20,
    }


def test_windows_and_gates_are_read() -> None:
    policy = policy_from_builtins({"windows": [WINDOW], "prometheus": [GATE | {"timeout_s": 2}]})
    assert policy.windows == (Window(frozenset({0, 4}), "22:00", "04:00", "Europe/Berlin"),)
    assert policy.prometheus == (PrometheusGate("errors", "http://prometheus.example:9090", "up", 2.0),)


def without(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}


@pytest.mark.parametrize(
    ("stored", "field"),
    [
        ({"speed": 1}, "speed"),
        ({"timing": {"soak": 1}}, "timing.soak"),
        ({"timing": {"soak_s": "10m"}}, "timing.soak_s"),
        ({"timing": {"soak_s": -1}}, "timing.soak_s"),
        ({"timing": {"soak_s": True}}, "timing.soak_s"),
        ({"timing": {"soak_s": float("nan")}}, "timing.soak_s"),
        ({"timing": {"soak_s": 366 * 86_400}}, "timing.soak_s"),
        ({"timing": {"lease_s": 0}}, "timing.lease_s"),
        ({"timing": 600}, "timing"),
        ({"follow": "now"}, "follow"),
        ({"on_failure": None}, "on_failure"),
        ({"canaries": {"share": 1.5}}, "canaries.share"),
        ({"canaries": {"share": 0}}, "canaries.share"),
        ({"canaries": {"count": -1}}, "canaries.count"),
        ({"canaries": {"count": 1, "share": 0.5}}, "canaries"),
        ({"canaries": {}}, "canaries"),
        ({"canaries": {"percent": 5}}, "canaries.percent"),
        ({"canaries": 3}, "canaries"),
        ({"max_unavailable": {"count": 0}}, "max_unavailable.count"),
        ({"max_unavailable": {"count": 1.5}}, "max_unavailable.count"),
        ({"max_per_domain": 2}, "domain_label"),
        ({"one_domain_after_another": True}, "domain_label"),
        ({"one_domain_after_another": "yes"}, "one_domain_after_another"),
        ({"domain_label": "two words"}, "domain_label"),
        ({"health_gate": 1}, "health_gate"),
        ({"stage_parallel": 0}, "stage_parallel"),
        ({"bandwidth_bytes_s": -5}, "bandwidth_bytes_s"),
        ({"drain": "rm -rf /"}, "drain"),
        ({"drain_s": 0}, "drain_s"),
        ({"mirrors": "http://m.example"}, "mirrors"),
        ({"mirrors": ["ftp://m.example"]}, "mirrors.0"),
        ({"mirrors": ["http://m.example", "http://"]}, "mirrors.1"),
        ({"mirrors": ["http://u:p@m.example"]}, "mirrors.0"),
        ({"mirrors": ["http://m.example:99999"]}, "mirrors.0"),
        ({"mirrors": ["http://m.example/?q=1"]}, "mirrors.0"),
        ({"windows": [WINDOW | {"zone": "Mars/Base"}]}, "windows.0.zone"),
        ({"windows": [WINDOW, WINDOW | {"opens": "25:00"}]}, "windows.1.opens"),
        ({"windows": [WINDOW | {"closes": "4:00"}]}, "windows.0.closes"),
        ({"windows": [WINDOW | {"days": []}]}, "windows.0.days"),
        ({"windows": [WINDOW | {"days": [0]}]}, "windows.0.days"),
        ({"windows": [WINDOW | {"days": [["mon"]]}]}, "windows.0.days"),
        ({"windows": [without(WINDOW, "zone")]}, "windows.0.zone"),
        ({"windows": [WINDOW | {"until": "x"}]}, "windows.0.until"),
        ({"windows": [WINDOW] * 51}, "windows"),
        ({"prometheus": [GATE | {"url": "prometheus:9090"}]}, "prometheus.0.url"),
        ({"prometheus": [GATE | {"url": "http://[::1"}]}, "prometheus.0.url"),
        ({"prometheus": [GATE | {"query": " "}]}, "prometheus.0.query"),
        ({"prometheus": [GATE | {"name": ""}]}, "prometheus.0.name"),
        ({"prometheus": [GATE | {"timeout_s": 0}]}, "prometheus.0.timeout_s"),
        ({"prometheus": [GATE, GATE]}, "prometheus"),
        ({"prometheus": ["up"]}, "prometheus.0"),
    ],
)
def test_what_is_wrong_is_named(stored: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        policy_from_builtins(stored)
    assert refused.value.field == field
    assert refused.value.text.endswith(".")


def test_a_group_has_no_connections_of_its_own() -> None:
    with pytest.raises(Invalid) as refused:
        checked({"timing": {"offline_grace_s": 5}})
    assert refused.value.field == "timing.offline_grace_s"
    frozen = policy_to_builtins(GroupPolicy(timing=Policy(offline_grace_s=5.0)), whole=True)
    assert policy_from_builtins(frozen).timing.offline_grace_s == 5.0
    assert frozen["timing"] == asdict(Policy(offline_grace_s=5.0))
