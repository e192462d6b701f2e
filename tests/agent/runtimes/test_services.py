"""Label rules: which service a container belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtimes.services import MAX_CHARS, ServiceLabels, service_of

COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
SWARM = {
    "com.docker.stack.namespace": "shop",
    "com.docker.swarm.service.name": "shop_web",
    "com.docker.swarm.node.id": "n0de",
    "com.docker.swarm.task.name": "shop_web.1.t4sk",
}
KUBERNETES = {
    "io.kubernetes.pod.namespace": "prod",
    "io.kubernetes.pod.name": "web-7d4b9c6f5d-x2k4z",
    "io.kubernetes.container.name": "web",
}
NOMAD = {"com.hashicorp.nomad.alloc_id": "5e2c"}


def pod(name: str, container: str = "main") -> dict[str, str]:
    return {**KUBERNETES, "io.kubernetes.pod.name": name, "io.kubernetes.container.name": container}


RULES: list[tuple[str, dict[str, str], ServiceLabels]] = [
    ("/plain", {}, ServiceLabels("", "plain")),
    ("x", {"twinroot.service": "web"}, ServiceLabels("", "web")),
    ("x", {"twinroot.service": "web", "twinroot.scope": "shop"}, ServiceLabels("shop", "web")),
    ("x", {"twinroot.scope": "shop"}, ServiceLabels("shop", "x")),
    ("shop-web-1", COMPOSE, ServiceLabels("shop", "web")),
    ("x", {**COMPOSE, "twinroot.service": "front"}, ServiceLabels("shop", "front")),
    ("x", {**COMPOSE, "twinroot.scope": "live"}, ServiceLabels("live", "web")),
    ("x", {**COMPOSE, "twinroot.replicas": " 3 "}, ServiceLabels("shop", "web", replicas=3)),
    ("x", {**COMPOSE, "twinroot.per-node": "yes"}, ServiceLabels("shop", "web", per_node=True)),
    ("shop-run-1", {**COMPOSE, "com.docker.compose.oneoff": "True"}, ServiceLabels("shop", "shop-run-1")),
    ("x", {"io.podman.compose.project": "p", "com.docker.compose.service": "w"}, ServiceLabels("p", "w")),
    ("x", {"io.podman.compose.project": "p", "io.podman.compose.service": "w"}, ServiceLabels("p", "w")),
    ("shop_web.1.t4sk", SWARM, ServiceLabels("shop", "web")),
    ("x", {"com.docker.swarm.service.name": "web"}, ServiceLabels("", "web")),
    (
        "x",
        {**SWARM, "com.docker.swarm.task.name": "shop_web.n0de.t4sk"},
        ServiceLabels("shop", "web", per_node=True),
    ),
    (
        "x",
        {**SWARM, "com.docker.swarm.task.name": "shop_web.n0de.t4sk", "twinroot.per-node": "no"},
        ServiceLabels("shop", "web"),
    ),
    ("k8s_web_x", KUBERNETES, ServiceLabels("prod", "web")),
    ("x", pod("web-7d4b9c6f5d-x2k4z", "sidecar"), ServiceLabels("prod", "web/sidecar")),
    ("x", pod("node-exporter-x2k4z"), ServiceLabels("prod", "node-exporter/main")),
    ("x", pod("db-0", "db"), ServiceLabels("prod", "db")),
    ("x", pod("web-proxy"), ServiceLabels("prod", "web-proxy/main")),
    ("server-5e2c", NOMAD, ServiceLabels("", "server")),
    (
        "server-5e2c",
        {**NOMAD, "com.hashicorp.nomad.namespace": "edge", "com.hashicorp.nomad.job_name": "shop"},
        ServiceLabels("edge", "shop/server"),
    ),
    ("x", {**COMPOSE, **SWARM, **KUBERNETES, **NOMAD}, ServiceLabels("shop", "web")),
    ("x", {"twinroot.service": " a\nb\x1b "}, ServiceLabels("", "a b")),
    ("x", {"twinroot.service": ""}, ServiceLabels("", "x")),
]


@pytest.mark.parametrize(("name", "labels", "expected"), RULES)
def test_rules(name: str, labels: dict[str, str], expected: ServiceLabels) -> None:
    assert service_of(name, labels) == expected


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "²", "99999999"])
def test_a_label_that_is_no_count_counts_nothing(text: str) -> None:
    found = service_of("x", {"twinroot.replicas": text})
    assert found is not None
    assert found.replicas is None


def test_containers_that_only_hold_a_pod_are_no_service() -> None:
    assert service_of("k8s_POD_x", {**KUBERNETES, "io.kubernetes.container.name": "POD"}) is None
    assert service_of("pod-infra", {}, "localhost/podman-pause:4.3.1-0") is None


KEYS = sorted({key for _, labels, _ in RULES for key in labels})
LABELS = st.dictionaries(st.sampled_from(KEYS), st.one_of(st.text(max_size=300), st.just("web-x2k4z")))


@given(st.text(min_size=1, max_size=300), LABELS)
def test_any_labels_give_one_line_of_limited_length_or_nothing(name: str, labels: dict[str, str]) -> None:
    found = service_of(name, labels)
    if found is None:
        assert labels["io.kubernetes.container.name"] == "POD"
        return
    for text in (found.scope, found.service):
        assert len(text) <= MAX_CHARS
        assert text == text.strip()
        assert not any(ord(c) < 32 for c in text)
    assert found.replicas is None or found.replicas >= 0


@given(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,40}", fullmatch=True), LABELS)
def test_a_named_container_always_has_a_service(name: str, labels: dict[str, str]) -> None:
    found = service_of(name, labels)
    assert found is None or found.service


@given(st.text(min_size=1, max_size=20).filter(str.isalnum), LABELS)
def test_our_own_labels_win(service: str, labels: dict[str, str]) -> None:
    labels.pop("io.kubernetes.container.name", None)
    found = service_of("x", {**labels, "twinroot.service": service, "twinroot.scope": service})
    assert found is not None
    assert (found.scope, found.service) == (service, service)
