"""`twinroot sim`: a simulated fleet on real connections to a gateway."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec

from sim.crowd import Crowd, Place
from sim.dialling import SimError
from sim.scenario import MAX_NODES, Scenario, ScenarioError, checked, read_scenario


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--url", required=True, help="Of the gateway, such as ws://127.0.0.1:8090/agent.")
@click.option("--token", required=True, help="A join token with a use for each node.")
@click.option("--fingerprint", default="", help="Of the server's key; without it the key is taken as it is shown.")
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), help="Instead of the scenario's number.")
@click.option("--seed", type=int, help="Instead of the scenario's.")
@click.option("--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds.")
@click.option("--joins-per-s", type=click.FloatRange(min=0, min_open=True), default=50.0, show_default=True)
def sim(
    scenario: Path,
    url: str,
    token: str,
    fingerprint: str,
    nodes: int | None,
    seed: int | None,
    seconds: float | None,
    joins_per_s: float,
) -> None:
    """Connect a simulated fleet; SCENARIO is a TOML file (docs/sim.md). Ctrl-C ends it."""
    try:
        read = _changed(read_scenario(scenario), nodes, seed)
        crowd = Crowd(read, Place(url, token, fingerprint, joins_per_s), say=click.echo)
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(_until_stopped(crowd, seconds))
    except (ScenarioError, SimError) as problem:
        raise click.ClickException(str(problem)) from problem


def _changed(scenario: Scenario, nodes: int | None, seed: int | None) -> Scenario:
    if nodes is not None:
        scenario = msgspec.structs.replace(scenario, fleet=msgspec.structs.replace(scenario.fleet, nodes=nodes))
    if seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=seed)
    return checked(scenario)


async def _until_stopped(crowd: Crowd, seconds: float | None) -> None:
    loop, running = asyncio.get_running_loop(), asyncio.create_task(crowd.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    done, _ = await asyncio.wait([running], timeout=seconds)
    if not done:
        running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        click.echo("Stopped.")


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: it carries several times as many connections."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
