"""The invariants of tests.agent.world, at each input and each command; a broken one is an AssertionError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.phases.inputs import Command, Do, Send
from agent.phases.model import State, Step, Work, WorkKind
from wire.messages import LeaseRequest

if TYPE_CHECKING:
    from tests.agent.world import World

UNDRAINS = frozenset({Step.IDLE, Step.HELD, Step.READY, Step.SOAKING})
"""Steps from which no reboot follows by itself, and in which no other work waits."""


def check_drain(world: World, work: Work) -> None:
    assert any(until > world.boot_s for until in world.grants.values()), "drained without a live lease"
    assert world.disk_state.drained is not None, "drained before that was on disk"
    assert world.drained_by in ("", work.script), "drained twice, by different executables"
    assert work.limit_s > 0, "no time to drain"
    assert world.boot_s + work.limit_s < max(world.grants.values()), "draining may outlast the lease"


def check_reboot(world: World) -> None:
    if world.state.step is not Step.ROLLING_BACK:
        assert any(until > world.boot_s for until in world.grants.values()), "rebooted without a live lease"


def check_command(world: World, command: Command) -> None:
    """What is begun without waiting for anything else: what came to run here after that is too late."""
    match command:
        case Send(message=LeaseRequest(nonce=nonce)):
            world.asked_with[nonce] = world.state.serving
        case Do(work=Work(kind=WorkKind.ARM | WorkKind.REBOOT)) if world.state.step is not Step.ROLLING_BACK:
            _check_drained_and_counted(world)


def _check_drained_and_counted(world: World) -> None:
    operation, counted, now = world.state.operation, world.granted_for, world.state.serving
    assert operation is not None and counted is not None
    assert not operation.drain or world.drained_by, "armed without draining"
    assert counted.known == now.known, "armed although what runs here became known, or unknown"
    for service, count in now.replicas.items():
        assert count <= counted.replicas.get(service, 0), f"{service} came here after the lease was asked for"


def check_state(before: State, after: State) -> None:
    if before.newest is not None:
        assert after.newest is not None and after.newest >= before.newest, "the order went back"
    assert after.next_seq >= before.next_seq
    ids = [ended.operation_id for ended in after.ended]
    assert len(ids) == len(set(ids)), "an operation ended twice"
    if after.operation is not None:
        assert after.operation.id not in ids, "an operation that has ended runs"
    if after.step in (Step.IDLE,):
        assert after.operation is None and after.expected is None and after.lease is None
    else:
        assert after.operation is not None


def check_quiet(world: World) -> None:
    """With nothing under way: staged is never next boot (rule 2), and a node that is drained will be undrained."""
    left = world.state.drained
    assert not world.drained_by or (left is not None and left.script == world.drained_by), "stays drained, unnoticed"
    if left is not None and not world.todo and not world.state.work and world.state.step in UNDRAINS:
        stuck = world.state.booted is not None and world.state.booted.stuck
        assert stuck or left.again_s is not None, f"nobody undrains it in step {world.state.step}"
    if not world.todo and not world.state.work and world.state.step in (Step.IDLE, Step.READY, Step.HELD):
        facts = world.state.booted
        if facts is not None and facts.confirmed:
            assert world.next_boot == world.booted, "a slot is armed and nothing is under way"
