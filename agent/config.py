"""The agent's configuration: one TOML file, read, checked and frozen once.

Where it is: `--config`, else the environment's TWINROOT_AGENT_CONFIG, else /etc/twinroot-agent/config.toml.
"""

from __future__ import annotations

import ipaddress
import math
import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from agent.checks import Builtin, ChecksConfig, DiskLimit
from agent.drain import FOLDERS
from agent.errors import ConfigError
from agent.phases.inputs import Limits
from agent.witnesses import WitnessConfig

VARIABLE = "TWINROOT_AGENT_CONFIG"
DEFAULT_FILE = Path("/etc/twinroot-agent/config.toml")
DEFAULT_STATE = Path("/var/lib/twinroot-agent")
DEFAULT_RUN = Path("/run/twinroot-agent")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: an unknown key is an error, since it is a setting that would not count."""


class DriverName(StrEnum):
    FILES = "files"
    RAUC = "rauc"


class FilesOptions(Section, frozen=True, kw_only=True):
    root: str
    tries: int = 3


class RaucOptions(Section, frozen=True, kw_only=True):
    bus_address: str | None = None
    """The system bus when not given."""
    reboot_command: tuple[str, ...] = ("systemctl", "reboot")


class DiskOptions(Section, frozen=True, kw_only=True):
    path: str
    min_free_percent: float = 5.0
    min_free_mib: float = 100.0


class CheckOptions(Section, frozen=True, kw_only=True):
    interval_s: float = 15.0
    trial_interval_s: float = 2.0
    """While the booted slot is on trial: there somebody waits."""
    folders: list[str] | None = None
    builtins: list[Builtin] | None = None
    required_builtins: list[Builtin] | None = None
    disks: list[DiskOptions] | None = None
    min_memory_percent: float = 5.0
    ignored_units: list[str] = []
    script_limit_s: float = 30.0


class WitnessOptions(Section, frozen=True, kw_only=True):
    default_route: bool = True
    dns_names: list[str] = []
    urls: list[str] = []
    timeout_s: float = 10.0


class DrainOptions(Section, frozen=True, kw_only=True):
    folders: list[str] | None = None


class SpanOptions(Section, frozen=True, kw_only=True):
    """See agent.phases.inputs.Limits; only what an operator has a reason to change."""

    stage_s: float = 3600.0
    unasked_confirm_s: float = 60.0


class File(Section, frozen=True, kw_only=True):
    """The file as it is written."""

    driver: DriverName
    files: FilesOptions | None = None
    rauc: RaucOptions = RaucOptions()
    state_folder: str = str(DEFAULT_STATE)
    run_folder: str | None = None
    """For what need not outlive a boot; below the state folder where that is not the default one."""
    root: str = "/"
    """Where machine id, hardware and boot are looked for: another folder in containers and tests."""
    runtimes: list[str] = []
    """Sockets of container engines."""
    no_containers: bool = False
    """No services run on this machine: it may be updated without anybody's word on what runs here."""
    image_keys: str = "/etc/twinroot-agent/keys.d"
    allow_unencrypted: bool = False
    """Permits ws:// and http:// beyond loopback."""
    labels: dict[str, str] = {}
    checks: CheckOptions = CheckOptions()
    drain: DrainOptions = DrainOptions()
    witnesses: WitnessOptions = WitnessOptions()
    limits: SpanOptions = SpanOptions()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent works with."""

    driver: DriverName
    files: FilesOptions | None
    rauc: RaucOptions
    state_folder: Path
    run_folder: Path
    root: Path
    runtimes: tuple[Path, ...]
    no_containers: bool
    image_keys: Path
    allow_unencrypted: bool
    labels: Mapping[str, str]
    checks: ChecksConfig
    check_interval_s: float
    trial_check_interval_s: float
    drain_folders: tuple[Path, ...]
    witnesses: WitnessConfig
    limits: Limits


def find(option: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The file to read."""
    if option is not None:
        return option
    named = environment.get(VARIABLE)
    return Path(named) if named else DEFAULT_FILE


def load(path: Path) -> Config:
    """Read and check `path`. ConfigError names file and key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"the configuration {path} cannot be read: {problem.strerror}; deploy/agent.toml is an example"
        ) from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not TOML: {problem}") from problem
    try:
        return build(msgspec.convert(table, File))
    except msgspec.ValidationError as problem:
        raise ConfigError(f"{path}: {_with_key(problem)}") from problem
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem.text}") from problem


def build(file: File) -> Config:
    """Checked values of a file's tables; ConfigError names the key."""
    if file.driver is DriverName.FILES and file.files is None:
        raise ConfigError('files: the driver "files" needs a table [files] with its root')
    if file.no_containers and file.runtimes:
        raise ConfigError("no_containers: this node names container engines, so what runs here is read from them")
    state_folder = _absolute("state_folder", file.state_folder)
    return Config(
        driver=file.driver,
        files=_files(file.files),
        rauc=_rauc(file.rauc),
        state_folder=state_folder,
        run_folder=_run_folder(file.run_folder, state_folder),
        root=_absolute("root", file.root),
        runtimes=tuple(_absolute(f"runtimes[{at}]", socket) for at, socket in enumerate(file.runtimes)),
        no_containers=file.no_containers,
        image_keys=_absolute("image_keys", file.image_keys),
        allow_unencrypted=file.allow_unencrypted,
        labels=_labels(file.labels),
        checks=_checks(file.checks, state_folder),
        check_interval_s=_positive("checks.interval_s", file.checks.interval_s),
        trial_check_interval_s=_positive("checks.trial_interval_s", file.checks.trial_interval_s),
        drain_folders=_drain_folders(file.drain),
        witnesses=_witnesses(file.witnesses),
        limits=Limits(
            stage_s=_positive("limits.stage_s", file.limits.stage_s),
            unasked_confirm_s=_positive("limits.unasked_confirm_s", file.limits.unasked_confirm_s),
            checks_late_s=max(Limits().checks_late_s, 3 * file.checks.interval_s + file.checks.script_limit_s),
        ),
    )


def check_url(url: str, *, allow_unencrypted: bool) -> None:
    """ConfigError when `url` is no address of a gateway, or would carry secrets in the clear (rule 11)."""
    parts = urlsplit(url)
    try:
        parts.port  # noqa: B018 - raises when it is not a number
    except ValueError as problem:
        raise ConfigError(f"{url}: {problem}") from problem
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a gateway: it begins with wss:// (or ws:// on loopback)")
    if parts.scheme == "ws" and not allow_unencrypted and not is_loopback(parts.hostname):
        raise ConfigError(f"{url} is not encrypted: use wss://, or set allow_unencrypted = true in the configuration")


def is_loopback(host: str) -> bool:
    """Whether traffic to `host` stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _with_key(problem: msgspec.ValidationError) -> str:
    """msgspec words the place as `$.checks.interval_s`; the file has no `$`."""
    text, _, place = str(problem).partition(" - at `$")
    return f"{place.strip('.`')}: {text}" if place else text


def _absolute(key: str, value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise ConfigError(f"{key}: {value!r} is not an absolute path")
    return path


def _positive(key: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{key}: must be a number of seconds above 0, not {value}")
    return float(value)


def _files(options: FilesOptions | None) -> FilesOptions | None:
    if options is not None:
        _absolute("files.root", options.root)
        if not 1 <= options.tries <= 100:
            raise ConfigError(f"files.tries: must be 1 to 100, not {options.tries}")
    return options


def _rauc(options: RaucOptions) -> RaucOptions:
    if not options.reboot_command:
        raise ConfigError("rauc.reboot_command: must name a command")
    return options


def _run_folder(given: str | None, state_folder: Path) -> Path:
    if given is not None:
        return _absolute("run_folder", given)
    return DEFAULT_RUN if state_folder == DEFAULT_STATE else state_folder / "run"


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in labels.items():
        check_label(key, value)
    return labels


def check_label(key: str, value: str) -> None:
    """ConfigError when a label has no key, or line breaks."""
    if not key.strip() or key != key.strip() or "\n" in key + value:
        raise ConfigError(f"labels: {key!r} = {value!r} is no label")


def _checks(options: CheckOptions, state_folder: Path) -> ChecksConfig:
    standard = ChecksConfig()
    folders, disks = options.folders, options.disks
    builtins, required = options.builtins, options.required_builtins
    return ChecksConfig(
        folders=standard.folders if folders is None else tuple(_absolute("checks.folders", f) for f in folders),
        state_folder=state_folder,
        builtins=standard.builtins if builtins is None else frozenset(builtins),
        required_builtins=standard.required_builtins if required is None else frozenset(required),
        disks=standard.disks if disks is None else tuple(_disk(disk) for disk in disks),
        min_memory_percent=options.min_memory_percent,
        ignored_units=frozenset(options.ignored_units),
        script_limit_s=_positive("checks.script_limit_s", options.script_limit_s),
    )


def _drain_folders(options: DrainOptions) -> tuple[Path, ...]:
    if options.folders is None:
        return FOLDERS
    return tuple(_absolute(f"drain.folders[{at}]", folder) for at, folder in enumerate(options.folders))


def _disk(options: DiskOptions) -> DiskLimit:
    path = _absolute("checks.disks.path", options.path)
    return DiskLimit(path, options.min_free_percent, options.min_free_mib)


def _witnesses(options: WitnessOptions) -> WitnessConfig:
    try:
        return WitnessConfig(
            default_route=options.default_route,
            dns_names=tuple(options.dns_names),
            urls=tuple(options.urls),
            timeout_s=_positive("witnesses.timeout_s", options.timeout_s),
        )
    except ValueError as problem:
        raise ConfigError(f"witnesses.urls: {problem}") from problem
