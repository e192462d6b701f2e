"""Any group policy, for properties."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import strategies as st

from app.core.group_policy import Amount, Follow, GroupPolicy, OnFailure, PrometheusGate, Window
from app.core.policy import Policy

seconds = st.one_of(
    st.integers(1, 300_000).map(float),
    st.sampled_from([60.0, 3600.0, 86_400.0, 7 * 86_400.0, 90.5]),
)
clock = st.times().map(lambda time: f"{time:%H:%M}")
shares = st.integers(1, 10_000).map(lambda hundredths: hundredths / 10_000)


def amounts(least: int) -> st.SearchStrategy[Amount]:
    counts = st.integers(least, 1_000_000).map(lambda count: Amount(count=count))
    return st.one_of(counts, shares.map(lambda share: Amount(share=share)))


windows = st.builds(
    Window,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    opens=clock,
    closes=clock,
    zone=st.sampled_from(["Europe/Berlin", "UTC", "America/New_York"]),
)
gates = st.builds(
    PrometheusGate,
    name=st.sampled_from(["errors", "latency.p99", "x"]),
    url=st.sampled_from(["http://prometheus.example:9090", "https://p.example/prom"]),
    query=st.sampled_from(["up", "sum(rate(errors_total[5m])) < bool 3", 'up{job="a b"} == 1', "timeout = 3"]),
    timeout_s=st.sampled_from([5.0, 0.5, 60.0, 2.0]),
)
mirrors = st.sampled_from(["http://mirror.example", "https://mirror.example:8443/images"])
policies = st.builds(
    GroupPolicy,
    timing=st.builds(Policy, **{each.name: seconds for each in fields(Policy)}),
    follow=st.sampled_from(Follow),
    canaries=amounts(0),
    canary_soak_s=seconds,
    max_unavailable=amounts(1),
    domain_label=st.sampled_from(["zone", "rack.example/row"]),
    max_per_domain=st.integers(0, 9),
    one_domain_after_another=st.booleans(),
    failure_limit=amounts(0),
    failure_least=st.integers(0, 9),
    on_failure=st.sampled_from(OnFailure),
    windows=st.lists(windows, max_size=3).map(tuple),
    minimum_age_s=seconds,
    absent_after_s=seconds.filter(lambda value: value >= 60),
    health_gate=st.booleans(),
    prometheus=st.lists(gates, max_size=2, unique_by=lambda gate: gate.name).map(tuple),
    stage_parallel=st.integers(1, 500),
    stage_jitter_s=seconds,
    drain=st.sampled_from(["", "cordon", "k8s.drain-1"]),
    drain_s=seconds,
    mirrors=st.lists(mirrors, max_size=2).map(tuple),
    bandwidth_bytes_s=st.integers(0, 10**12),
)
