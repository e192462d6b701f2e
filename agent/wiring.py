"""From the configuration to the parts of a running agent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from agent import facts
from agent.checks import run_checks
from agent.config import Config, DriverName
from agent.download import download
from agent.drain import Drains
from agent.drivers.base import Driver
from agent.drivers.files import FilesDriver
from agent.errors import AgentError
from agent.evidence import EvidenceTable
from agent.facts import FactsError
from agent.inhibit import Inhibitors
from agent.phases.model import State
from agent.runner import Runner, Surroundings
from agent.runtimes.docker import DockerRuntime
from agent.senses import Sources
from agent.state import Identity, StateFolder, require_same_machine
from agent.status import StatusFile
from agent.trust import check_image, load_image_keys
from agent.witnesses import probe, still_standing
from agent.work import Means
from wire.messages import Image

STATUS = "status.json"
INHIBITORS = "inhibitors"
DRAINING = "draining.json"


class JudgingDriver(Driver, Protocol):
    """A driver with its evidence table: every one has it."""

    @property
    def evidence(self) -> EvidenceTable: ...


def agent_version() -> str:
    """Of the installed package."""
    try:
        return version("twinroot")
    except PackageNotFoundError:
        return "0"  # run from a source tree that was never installed


def make_driver(config: Config) -> JudgingDriver:
    """The driver that the configuration names. AgentError when what it needs is not installed."""
    if config.driver is DriverName.FILES:
        assert config.files is not None, "the configuration was checked"
        return FilesDriver(Path(config.files.root), tries=config.files.tries)
    try:
        from agent.drivers.rauc import RaucDriver
    except ImportError as problem:
        raise AgentError(f"the driver rauc needs the package {problem.name}: install twinroot[agent]") from problem
    return RaucDriver(
        config.state_folder / "rauc-slots.json",
        bus_address=config.rauc.bus_address,
        root=config.root,
        reboot_command=config.rauc.reboot_command,
    )


def inhibitors(config: Config) -> Inhibitors:
    """Those of this machine; the boot that ends them is the kernel's."""
    try:
        return Inhibitors(config.run_folder / INHIBITORS, facts.boot_id())
    except FactsError as problem:
        raise AgentError(str(problem)) from problem


def who_is_this(config: Config) -> tuple[str, str]:
    """Machine id and hardware fingerprint. AgentError when the machine has no id."""
    try:
        return facts.machine_id(config.root), facts.hardware_fingerprint(config.root)
    except FactsError as problem:
        raise AgentError(str(problem)) from problem


def make_runner(config: Config, folder: StateFolder) -> Runner:
    """A runner for the node that has joined. AgentError when it has not, or is another machine."""
    identity, state = _who_and_where(config, folder)
    driver = make_driver(config)
    return Runner(
        folder,
        identity,
        state,
        _means(config, folder, driver),
        _sources(config, driver),
        _surroundings(config, driver),
        limits=config.limits,
        status=StatusFile(config.run_folder / STATUS).write,
    )


def _who_and_where(config: Config, folder: StateFolder) -> tuple[Identity, State]:
    identity = folder.read_identity()
    if identity is None:
        raise AgentError("this machine has not joined: run twinroot-agent join as the console prints it")
    require_same_machine(identity, *who_is_this(config))
    state = folder.read_state()
    if state is None:
        raise AgentError(f"{folder.state_file} is missing: restore it from a backup, or join again with --again")
    return identity, state


def _means(config: Config, folder: StateFolder, driver: Driver) -> Means:
    return Means(
        driver=driver,
        download=partial(download, allow_unencrypted=config.allow_unencrypted),
        trust=partial(_trust, config.image_keys),
        probe=partial(probe, config.witnesses),
        still_standing=still_standing,
        drain=Drains(config.drain_folders, config.run_folder / DRAINING).run,
        boot_s=facts.boottime_now,
        asleep_s=facts.asleep_s,
        downloads=folder.downloads,
    )


def _trust(keys: Path, image: Image) -> None:
    """The keys are read each time: a key that was taken away counts no more."""
    check_image(image, load_image_keys(keys))


def _sources(config: Config, driver: Driver) -> Sources:
    return Sources(
        driver=driver,
        check=partial(run_checks, config.checks),
        runtimes=[DockerRuntime(path) for path in config.runtimes],
        no_containers=config.no_containers,
        inhibitors=inhibitors(config),
        boot_s=facts.boottime_now,
        check_interval_s=config.check_interval_s,
        trial_check_interval_s=config.trial_check_interval_s,
    )


def _surroundings(config: Config, driver: JudgingDriver) -> Surroundings:
    return Surroundings(
        evidence=driver.evidence,
        wall=time.time,
        boot_at=_boot_at(config, driver),
        shutting_down=partial(facts.shutting_down, config.root),
        hostname=socket.gethostname(),
        agent_version=agent_version(),
    )


def _boot_at(config: Config, driver: Driver) -> Callable[[], float]:
    if isinstance(driver, FilesDriver):
        return lambda: driver.files.read_running().at
    return partial(facts.boot_time, config.root)
