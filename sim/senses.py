"""What a simulated node finds of itself: its checks, and the picture that its agent shows."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from agent.phases.show import activity
from agent.picture import Picture
from sim.scenario import ChecksFail
from wire.messages import (
    AgentFacts,
    Boot,
    BootCause,
    Check,
    CheckState,
    EvidenceClass,
    Facts,
    Health,
    HealthState,
    OsFacts,
)

if TYPE_CHECKING:
    from sim.node import SimNode

AGENT_VERSION = "0.1.0"
CHECK = "10-service"
GOOD = Health(state=HealthState.HEALTHY, checks=[Check(name=CHECK, state=CheckState.PASSED, text="answers")])
_AGENT = AgentFacts(version=AGENT_VERSION, mode="simulated")


def found(fault: ChecksFail | None) -> Health:
    """What a round of checks finds; one value for all nodes, for there are many of them."""
    return GOOD if fault is None else _failed(fault.version)


@cache
def _failed(version: str) -> Health:
    text = f"no answer within 5 s on {version}" if version else "no answer within 5 s"
    check = Check(name=CHECK, state=CheckState.FAILED, text=text, output="GET /healthz: timed out\n")
    return Health(state=HealthState.UNHEALTHY, reasons=[f"{CHECK}: {text}."], checks=[check])


def pictured(node: SimNode) -> Picture:
    """What the node shows of itself now."""
    state = node.state
    return Picture(
        facts=_facts(node),
        slots=state.slots,
        activity=activity(state, node.body.boot_s),
        health=node.health,
        placement=node.engine.shown(),
        outbox=state.outbox,
    )


def _facts(node: SimNode) -> Facts:
    return Facts(
        agent=_AGENT,
        os=os_facts(node),
        boot=node.state.boot or Boot(id=node.body.boot_id, at=0.0, cause=BootCause.UNKNOWN),
        evidence=EvidenceClass.AGENT_WITH_PLACEMENT,
        hostname=node.spec.name,
    )


def os_facts(node: SimNode) -> OsFacts:
    """What runs, as images are matched against it."""
    spec, version = node.spec, node.machine.running.version
    return OsFacts(id=spec.os, name="Simulated OS", version=version, kernel="sim", arch=spec.arch, driver="files")
