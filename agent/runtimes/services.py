"""Which service a container belongs to, from its labels and its name. Pure.

Scope and name are looked for independently, each in this order: our own labels, Compose, podman-compose,
Swarm, Kubernetes, Nomad; without any of them the container's name is the service and the scope stays empty
(the control plane then uses the node's group). Label names: Engine API, Compose specification, CRI, Nomad's
Docker driver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_CHARS = 200
"""Longest scope or name: beyond any orchestrator's own limit, and short enough for a page's table."""

MAX_REPLICAS = 100_000
"""The wire's limit; a label that asks for more is a slip of the pen and is not counted."""

_YES = frozenset({"1", "true", "yes", "on"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

# Kubernetes ends the names of pods with characters that spell no words (apimachinery util/rand), five for
# the pod and up to ten for the template of a Deployment before them; a StatefulSet counts its pods.
_POD_NAME = re.compile(r"(?P<workload>.+?)(?:-[bcdfghjklmnpqrstvwxz2456789]{6,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}")
_STATEFUL_POD_NAME = re.compile(r"(?P<workload>.+)-\d{1,5}")


@dataclass(frozen=True)
class ServiceLabels:
    """What labels and name say: scope (may be empty), service, on every node by design, expected replicas."""

    scope: str
    service: str
    per_node: bool = False
    replicas: int | None = None


@dataclass(frozen=True)
class _Named:
    scope: str = ""
    service: str = ""
    per_node: bool = False


def service_of(name: str, labels: Mapping[str, str], image: str = "") -> ServiceLabels | None:
    """The service of one container; None for those that only hold a pod's namespaces together.

    `name` is the engine's container name, with or without its leading slash. The service is never empty as
    long as the name is not.
    """
    if labels.get("io.kubernetes.container.name") == "POD" or _is_pod_infra(image):
        return None
    own_name = _clean(name.removeprefix("/"))
    found = _from_orchestrator(own_name, labels)
    per_node = labels.get("twinroot.per-node")
    return ServiceLabels(
        scope=_clean(labels.get("twinroot.scope", "")) or found.scope,
        service=_clean(labels.get("twinroot.service", "")) or found.service or own_name,
        per_node=found.per_node if per_node is None else per_node.strip().lower() in _YES,
        replicas=_replicas(labels.get("twinroot.replicas", "")),
    )


def _from_orchestrator(name: str, labels: Mapping[str, str]) -> _Named:
    for rule in (_compose, _podman_compose, _swarm, _kubernetes, _nomad):
        found = rule(name, labels)
        if found is not None:
            return _Named(_clean(found.scope), _clean(found.service), found.per_node)
    return _Named()


def _compose(_name: str, labels: Mapping[str, str]) -> _Named | None:
    project = labels.get("com.docker.compose.project", "")
    service = labels.get("com.docker.compose.service", "")
    if not service:
        return None
    if labels.get("com.docker.compose.oneoff", "").lower() == "true":
        # `compose run` borrows the service's definition; it is no replica, so it keeps its own name.
        return _Named(scope=project)
    return _Named(project or labels.get("io.podman.compose.project", ""), service)


def _podman_compose(_name: str, labels: Mapping[str, str]) -> _Named | None:
    service = labels.get("io.podman.compose.service", "")
    return _Named(labels.get("io.podman.compose.project", ""), service) if service else None


def _swarm(_name: str, labels: Mapping[str, str]) -> _Named | None:
    full_name = labels.get("com.docker.swarm.service.name", "")
    if not full_name:
        return None
    stack = labels.get("com.docker.stack.namespace", "")
    # A global service names its tasks after the node instead of a replica number.
    node_id = labels.get("com.docker.swarm.node.id", "")
    task = labels.get("com.docker.swarm.task.name", "")
    return _Named(
        scope=stack,
        service=full_name.removeprefix(f"{stack}_") if stack else full_name,
        per_node=bool(node_id) and task.startswith(f"{full_name}.{node_id}."),
    )


def _kubernetes(_name: str, labels: Mapping[str, str]) -> _Named | None:
    pod = labels.get("io.kubernetes.pod.name", "")
    if not pod:
        return None
    match = _POD_NAME.fullmatch(pod) or _STATEFUL_POD_NAME.fullmatch(pod)
    workload = match["workload"] if match else pod
    container = labels.get("io.kubernetes.container.name", "")
    # Sidecars are services beside the main one: in one they would count as replicas of each other.
    service = workload if container in ("", workload) else f"{workload}/{container}"
    return _Named(labels.get("io.kubernetes.pod.namespace", ""), service)


def _nomad(name: str, labels: Mapping[str, str]) -> _Named | None:
    allocation = labels.get("com.hashicorp.nomad.alloc_id", "")
    if not allocation:
        return None
    # Job and task are labels only where the client's `extra_labels` says so; the driver always names the
    # container TASK-ALLOCATION.
    task = labels.get("com.hashicorp.nomad.task_name") or name.removesuffix(f"-{allocation}")
    job = labels.get("com.hashicorp.nomad.job_name", "")
    service = f"{job}/{task}" if job and job != task else task
    return _Named(labels.get("com.hashicorp.nomad.namespace", ""), service)


def _is_pod_infra(image: str) -> bool:
    """Whether this is Podman's own pause image, which its API lists like any other."""
    return image.rpartition("/")[2].partition(":")[0] == "podman-pause"


def _replicas(text: str) -> int | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_REPLICAS)):
        return None
    count = int(text)
    return count if count <= MAX_REPLICAS else None


def _clean(text: str) -> str:
    """Without control characters and surrounding space, and not longer than MAX_CHARS."""
    return _CONTROL.sub(" ", text)[:MAX_CHARS].strip()
