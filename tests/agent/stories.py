"""How far tests bring an invented machine before they begin."""

from __future__ import annotations

from agent.phases.model import Step
from agent.phases.show import holds
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import OperationKind


def ready(kind: OperationKind = OperationKind.ACTIVATE, world: World | None = None) -> World:
    """Waits for a lease; on a fresh machine unless another is given."""
    world = world or joined()
    world.desire(1, operation("op", kind, None if kind is OperationKind.REBOOT else "2"))
    world.run()
    assert world.state.step is Step.READY
    return world


def armed(world: World) -> World:
    """From there up to REBOOTING: the reboot is the next command."""
    world.grant()
    world.one()
    world.one()
    assert world.state.step is Step.REBOOTING
    return world


def booted_new(world: World, name: str = "op", version: str = "2") -> World:
    """Up to CONFIRMING in the new slot; not yet welcomed since the reboot."""
    world.desire(world.state.newest.generation + 1 if world.state.newest else 1, operation(name, version=version))
    world.run()
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING, world.state.step
    return world


def updated(world: World, name: str = "op", version: str = "2") -> World:
    booted_new(world, name, version)
    world.welcome()
    world.check()
    world.run()
    assert world.state.step is Step.SOAKING
    world.wait(61)
    world.check()
    world.run()
    return world


def codes(world: World) -> list[str]:
    return [hold.code for hold in holds(world.state, world.boot_s)]
