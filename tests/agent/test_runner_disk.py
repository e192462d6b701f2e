"""A state disk that takes nothing: nothing is begun, nothing is said that could be lost, and the way back is open."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.phases.inputs import Limits
from agent.state import Identity
from tests.agent.gateway import Gateway, until
from tests.agent.machine import Machine, agent_on
from tests.agent.test_runner import activities, desired, grant, play, quick, report, to_reboot
from wire.messages import Health, HealthState, LeaseRequest, OperationKind, OperationReport, Result


def holds(gateway: Gateway) -> set[str]:
    return {hold.code for shown in activities(gateway) for hold in shown.holds}


def test_a_full_disk_does_not_keep_an_unhealthy_slot(tmp_path: Path) -> None:
    """The new version filled the disk, of all things: what the next boot shows is evidence enough."""

    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        await to_reboot(gateway, machine, identity)
        machine.power_on()
        machine.health = Health(state=HealthState.UNHEALTHY, reasons=["disk: full."])
        machine.full_disk = True
        async with agent_on(machine, identity):
            await asyncio.wait_for(machine.rebooted.wait(), 10)
        machine.full_disk = False
        machine.power_on()
        assert machine.booted == "a"
        async with agent_on(machine, identity):
            assert (await report(gateway)).result is Result.FELL_BACK

    play(tmp_path, story)


def test_a_full_disk_confirms_nothing(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        await to_reboot(gateway, machine, identity)
        machine.power_on()
        machine.full_disk = True
        async with agent_on(machine, identity) as runner:
            await until(lambda: "state-disk" in holds(gateway))
            rounds = runner.state.rounds.number
            await until(lambda: runner.state.rounds.number > rounds + 3)
            assert "mark_good" not in machine.calls
            machine.full_disk = False
            assert (await report(gateway)).result is Result.SUCCEEDED

    play(tmp_path, story)


def test_a_lease_that_ends_on_a_full_disk_disarms(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["arm"] = asyncio.Event()
        async with agent_on(machine, identity, limits=Limits(lease_answer_s=0.2)):
            await gateway.say(desired(1, quick()))
            await grant(gateway)
            await until(lambda: "arm" in machine.calls)
            machine.full_disk = True
            machine.boot_offset_s += 61.0
            machine.gates["arm"].set()
            await until(lambda: "disarm" in machine.calls)
            assert machine.slots_["a"].next_boot and "reboot" not in machine.calls
            machine.full_disk = False
            await until(lambda: len(gateway.got(LeaseRequest)) >= 2)

    play(tmp_path, story)


def test_a_report_is_on_disk_before_it_is_said(tmp_path: Path) -> None:
    """Else a crash would give its number to something else, which the server would take for a repetition."""

    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        machine.gates["stage"] = asyncio.Event()
        async with agent_on(machine, identity) as runner:
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            await until(lambda: "stage" in machine.calls)
            machine.full_disk = True
            machine.gates["stage"].set()
            await until(lambda: "state-disk" in holds(gateway))
            rounds = runner.state.rounds.number
            await until(lambda: runner.state.rounds.number > rounds + 3)
            assert not gateway.got(OperationReport)
            machine.full_disk = False
            assert (await report(gateway)).result is Result.SUCCEEDED

    play(tmp_path, story)


def test_a_disk_that_is_full_for_long_fills_no_memory(tmp_path: Path) -> None:
    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity) as runner:
            machine.full_disk = True
            await gateway.say(desired(1, quick(kind=OperationKind.STAGE)))
            rounds = runner.state.rounds.number
            await until(lambda: runner.state.rounds.number > rounds + 20)
            assert runner._queue.qsize() < 20, "inputs are taken although nothing can be written"

    play(tmp_path, story)


def test_an_idle_node_shows_nothing_again_and_again(tmp_path: Path) -> None:
    """Ticks that change nothing neither compose a picture nor write status.json."""

    async def story(gateway: Gateway, machine: Machine, identity: Identity) -> None:
        async with agent_on(machine, identity) as runner:
            await until(lambda: runner.state.rounds.number > 2)
            machine.gates["check"] = asyncio.Event()
            await until(lambda: "check" in machine.calls)
            await until(lambda: not runner._untold)
            shown, started = len(machine.shown), asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > started + 2.5)
            assert len(machine.shown) == shown

    play(tmp_path, story)
