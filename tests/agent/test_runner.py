"""The runner with a real link to a gateway on loopback, on a machine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.drivers.base import DriverError
from agent.link import Link
from agent.phases.model import Step
from agent.runner import Runner
from agent.state import Identity, StateFolder
from tests.agent.gateway import Gateway, running, until
from tests.agent.machine import Machine, agent_on, driver_error
from tests.agent.wanted import operation
from wire.identity import fingerprint, new_private_key, public_key
from wire.messages import (
    Ack,
    Activity,
    Desired,
    Health,
    HealthState,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    NodeEvent,
    Operation,
    OperationKind,
    OperationReport,
    Order,
    Phase,
    Placement,
    Result,
    Status,
)

Story = Callable[[Gateway, Machine, Identity], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story) -> None:
    async def whole() -> None:
        async with running() as gateway:
            await story(gateway, Machine(folder), gateway.identity())

    asyncio.run(whole())


def quick(name: str = "op", kind: OperationKind = OperationKind.ACTIVATE, **more: Any) -> Operation:
    wanted = operation(name, kind)
    return msgspec.structs.replace(wanted, soak_s=0.05, confirm_s=0.3, keep_way_back_s=0.0, **more)


def desired(generation: int, wanted: Operation | None) -> Desired:
    return Desired(order=Order(1, generation), operation=wanted)


async def grant(gateway: Gateway, number: int = 1, duration_s: float = 60.0) -> None:
    """Answer the `number`-th request for a lease."""
    await until(lambda: len(gateway.got(LeaseRequest)) >= number)
    request = gateway.got(LeaseRequest)[-1]
    lease = LeaseGrant(
        lease_id=f"l{number}", operation_id=request.operation_id, nonce=request.nonce, duration_s=duration_s
    )
    await gateway.say(lease)


async def report(gateway: Gateway) -> OperationReport:
    return (await until(lambda: gateway.got(OperationReport)))[0]


def activities(gateway: Gateway) -> list[Activity]:
    return [status.activity for status in gateway.got(Status) if isinstance(status.activity, Activity)]


async def to_reboot(gateway: Gateway, machine: Machine, identity: Identity) -> None:
    """Up to the reboot of an update."""
    async with agent_on(machine, identity):
        await gateway.say(desired(1, quick()))
        await grant(gateway)
        await asyncio.wait_for(machine.rebooted.wait(), 10)
        shown = activities(gateway)[-1]
        assert shown.phase is Phase.REBOOTING, "the gateway hears of the reboot before it happens"


def test_an_update_from_order_to_report(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        await to_reboot(gateway, machine, identity)
        machine.power_on()
        async with agent_on(machine, identity):
            found = await report(gateway)
            assert found.result is Result.SUCCEEDED and found.evidence.old_boot_id == "boot-1"
            await until(lambda: activities(gateway)[-1].phase is Phase.IDLE)
            kinds = [event.kind for event in gateway.got(NodeEvent)]
            assert kinds[-3:] == ["boot", "confirmed", "soaked"]
            await gateway.say(Ack(seq=found.seq))
        assert machine.slots_["b"].good and machine.booted == "b"
        assert machine.calls == ["download", "stage", "arm", "reboot", "mark_good"]
        assert not list((machine.root / "state" / "downloads").iterdir())

    play(tmp_path, story)


def test_a_node_that_never_turns_healthy_goes_back(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        await to_reboot(gateway, machine, identity)
        machine.power_on()
        machine.health = Health(state=HealthState.UNHEALTHY, reasons=["web: down."])
        async with agent_on(machine, identity):
            await asyncio.wait_for(machine.rebooted.wait(), 10)
        machine.power_on()
        async with agent_on(machine, identity):
            found = await report(gateway)
            assert found.result is Result.FELL_BACK and "web" in found.reason
        assert machine.booted == "a"

    play(tmp_path, story)


def test_the_servers_next_key_is_pinned_told_and_used(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity, link=partial(Link, come_back_s=0.05)):
            await until(lambda: gateway.got(Status))
            newer = gateway.make_key()
            await gateway.name_key(newer)
            await until(lambda: len(gateway.hellos) == 2)
            assert gateway.hellos[1].server_fingerprint == fingerprint(newer)
            kinds = [event.kind for event in gateway.got(NodeEvent)]
            assert "server-key-changed" in kinds
            stored = StateFolder(machine.root / "state").read_identity()
            assert stored == msgspec.structs.replace(
                identity, server_key=newer, replaced_server_key=identity.server_key
            )

    play(tmp_path, story)


def test_a_key_that_nobody_signed_is_told_and_changes_nothing(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity, link=partial(Link, come_back_s=0.0)) as runner:
            await until(lambda: gateway.got(Status))
            foreign = new_private_key()
            await gateway.name_key(public_key(foreign), foreign)
            await until(lambda: "server-key-refused" in [event.kind for event in gateway.got(NodeEvent)])
            assert StateFolder(machine.root / "state").read_identity() is None, "nothing was written"
            assert runner._identity == identity and gateway.connections == 1

    play(tmp_path, story)


def test_killed_while_staging_it_stages_again(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["stage"] = asyncio.Event()
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            await until(lambda: "stage" in machine.calls)
        machine.gates["stage"].set()
        async with agent_on(machine, identity):
            assert (await report(gateway)).result is Result.SUCCEEDED
        assert machine.calls.count("stage") == 2

    play(tmp_path, story)


def test_cancelling_stops_the_download(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["download"] = asyncio.Event()
        async with agent_on(machine, identity) as runner:
            await gateway.say(desired(1, quick()))
            await until(lambda: "download" in machine.calls)
            await gateway.say(desired(2, None))
            assert (await report(gateway)).result is Result.CANCELLED
            await until(lambda: "disarm" in machine.calls)
            assert runner.state.step is Step.IDLE

    play(tmp_path, story)


def test_progress_is_shown(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["stage"] = asyncio.Event()
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            await until(lambda: any(shown.progress == 0.5 for shown in activities(gateway)))

    play(tmp_path, story)


def test_an_untrusted_image_is_refused(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.trusted = False
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick()))
            found = await report(gateway)
        assert found.result is Result.REFUSED and found.reason.startswith("untrusted-image")
        assert machine.calls == []

    play(tmp_path, story)


def test_trust_is_asked_again_directly_before_staging(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["stage"] = asyncio.Event()
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick()))
            await until(lambda: "stage" in machine.calls)
        machine.trusted = False
        async with agent_on(machine, identity):
            assert (await report(gateway)).result is Result.REFUSED
        assert machine.calls.count("stage") == 1

    play(tmp_path, story)


def test_a_full_disk_stops_commands_until_it_is_not_full(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            await until(lambda: gateway.got(Status))
            machine.full_disk = True
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            await until(lambda: any(hold.code == "state-disk" for shown in activities(gateway) for hold in shown.holds))
            assert machine.calls == []
            machine.full_disk = False
            assert (await report(gateway)).result is Result.SUCCEEDED

    play(tmp_path, story)


def test_the_lease_is_looked_at_directly_before_the_reboot(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["arm"] = asyncio.Event()
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick()))
            await grant(gateway, duration_s=60.0)
            await until(lambda: "arm" in machine.calls)
            machine.boot_offset_s += 61.0
            machine.gates["arm"].set()
            await until(lambda: gateway.got(LeaseReturn))
            await until(lambda: "disarm" in machine.calls)
            await until(lambda: len(gateway.got(LeaseRequest)) >= 2)
        assert "reboot" not in machine.calls and machine.slots_["a"].next_boot

    play(tmp_path, story)


def test_an_inhibitor_that_came_this_moment_counts(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick()))
            await until(lambda: gateway.got(LeaseRequest))
            inhibitor = machine.inhibitors().add("backup", by="ada")
            await grant(gateway)
            await until(lambda: gateway.got(LeaseReturn))
            await until(lambda: activities(gateway)[-1].inhibitors == ["backup (ada)"])
            assert any(hold.code == "inhibited" for hold in activities(gateway)[-1].holds)
            assert "arm" not in machine.calls
            machine.inhibitors().release(inhibitor.id)
            await grant(gateway, number=2)
            await asyncio.wait_for(machine.rebooted.wait(), 10)

    play(tmp_path, story)


def test_a_driver_that_fails_is_shown_and_tried_again(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.failures["mark_bad"] = [driver_error()] * 5
        async with agent_on(machine, identity):
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            await until(lambda: len(gateway.got(OperationReport)) == 1)
            await gateway.say(desired(2, quick("withdraw", OperationKind.DISARM)))
            await until(lambda: any(hold.code == "driver" for shown in activities(gateway) for hold in shown.holds))
            machine.failures.clear()
            await until(lambda: len(gateway.got(OperationReport)) == 2)
        assert machine.slots_["b"].good is False

    play(tmp_path, story)


def test_containers_are_shown_when_they_change(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            await until(lambda: gateway.got(Status))
            machine.placement = Placement(known=False, reason="the engine hangs")
            machine.placement_changed.set()
            await until(lambda: gateway.got(Status)[-1].placement == machine.placement)
            await until(lambda: machine.checked_with[-1] == machine.placement)
            machine.placement = Placement(known=True, engine="memory")  # answers again, and says nothing of it
            await until(lambda: gateway.got(Status)[-1].placement == machine.placement)

    play(tmp_path, story)


def test_the_first_round_of_checks_waits_for_the_engine(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["placement"] = asyncio.Event()
        async with agent_on(machine, identity):
            await until(lambda: gateway.got(Status))
            assert gateway.got(Status)[0].health.state is HealthState.UNKNOWN
            assert not machine.checked_with
            machine.gates["placement"].set()
            await until(lambda: machine.checked_with)
        assert all(placement == machine.placement for placement in machine.checked_with)

    play(tmp_path, story)


def test_an_engine_that_hangs_keeps_no_round_of_checks_back_for_ever(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["placement"] = asyncio.Event()
        machine.first_reading_s = 0.05
        async with agent_on(machine, identity):
            await until(lambda: machine.checked_with)
        assert machine.checked_with[0] is not None and not machine.checked_with[0].known

    play(tmp_path, story)


def test_slots_that_somebody_else_changed_are_shown(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            await until(lambda: gateway.got(Status))
            await machine.mark_bad("b")
            machine._set("b", version="9")
            await until(lambda: any("9" in str(status.slots) for status in gateway.got(Status)))

    play(tmp_path, story)


@pytest.mark.parametrize(("shuts_down", "cause"), [(True, "local command"), (False, "unknown")])
def test_a_clean_end_leaves_its_mark(tmp_path: Path, shuts_down: bool, cause: str) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.shuts_down = shuts_down
        async with agent_on(machine, identity) as runner:
            await until(lambda: gateway.got(Status))
            runner.stop()
            await until(lambda: not gateway.online)
        machine.power_on()
        async with agent_on(machine, identity):
            await until(lambda: gateway.got(NodeEvent)[-1].cause == cause)

    play(tmp_path, story)


def test_what_nobody_foresaw_ends_the_agent(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.failures["download"] = [ZeroDivisionError()]
        with pytest.raises(ExceptionGroup) as caught:
            async with agent_on(machine, identity) as runner:
                await gateway.say(desired(1, quick()))
                await until(lambda: not gateway.online and ended(runner))
        assert caught.group_contains(ZeroDivisionError)

    play(tmp_path, story)


def ended(runner: Runner) -> bool:
    return runner._tasks is None


def test_a_machine_that_does_not_answer_ends_the_agent_in_words(tmp_path: Path) -> None:
    class Dumb(Machine):
        async def slots(self) -> list[Any]:
            raise driver_error(text="no bus")

    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        dumb = Dumb(machine.root)
        with pytest.raises(DriverError, match="no bus"):
            async with agent_on(dumb, identity) as runner:
                await runner.run()

    play(tmp_path, story)


def test_status_is_told(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            await until(lambda: machine.shown and machine.shown[-1].link == "open")
            assert machine.shown[-1].node_id == "node-1"

    play(tmp_path, story)


def test_a_folder_among_the_downloads_fails_the_staging_and_not_the_agent(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity):
            (machine.root / "state" / "downloads" / "stray").mkdir()
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            found = await report(gateway)
            assert found.result is Result.STAGE_FAILED and "stray" in found.reason

    play(tmp_path, story)
