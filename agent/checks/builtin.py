"""The checks that every agent brings along. One that does not apply to this node is absent, not failed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from agent import blocking
from agent.checks import process
from agent.checks.config import Builtin, ChecksConfig, DiskLimit
from wire.messages import Check, CheckState, Placement

MIB = 1024 * 1024

UNIT_LIST_BYTES = 256 * 1024
"""Far more than all units of a machine take, failed every one."""

NAMED = 3
"""How many units or containers a sentence names before it counts the others."""

_DOWN_STATES = frozenset({"exited", "dead", "created", "restarting"})
"""Placement lists containers in these states only when the engine should keep them running."""

Finding = tuple[CheckState, str]
"""State of a check and its one line of text."""


async def run_builtins(config: ChecksConfig, placement: Placement | None) -> list[Check]:
    """All that are switched on and apply, one after the other: together they take some milliseconds."""
    checks: list[Check] = []
    if Builtin.STATE in config.builtins:
        checks.append(await _timed(config, Builtin.STATE, "", partial(_state, config)))
    if Builtin.ENGINE in config.builtins and placement is not None:
        checks.append(_check(config, Builtin.ENGINE, "", engine_finding(placement)))
    if Builtin.CONTAINERS in config.builtins and placement is not None and placement.known:
        checks.append(_check(config, Builtin.CONTAINERS, "", containers_finding(placement)))
    if Builtin.SYSTEMD in config.builtins and (config.root / "run/systemd/system").is_dir():
        checks.append(await _timed(config, Builtin.SYSTEMD, "", partial(_systemd, config)))
    if Builtin.DISK in config.builtins:
        for limit in config.disks:
            name = f":{limit.path}"
            checks.append(await _timed(config, Builtin.DISK, name, partial(_disk, config, limit)))
    if Builtin.MEMORY in config.builtins:
        checks.append(_check(config, Builtin.MEMORY, "", _memory(config)))
    return checks


def _check(config: ChecksConfig, builtin: Builtin, suffix: str, finding: Finding, duration_ms: int = 0) -> Check:
    state, text = finding
    return Check(
        name=f"{builtin.value}{suffix}",
        state=state,
        required=builtin in config.required_builtins,
        text=text,
        duration_ms=duration_ms,
    )


async def _timed(config: ChecksConfig, builtin: Builtin, suffix: str, look: Callable[[], Awaitable[Finding]]) -> Check:
    started_ms = process.now_ms()
    finding = await look()
    return _check(config, builtin, suffix, finding, process.now_ms() - started_ms)


async def _state(config: ChecksConfig) -> Finding:
    folder = config.state_folder
    try:
        await blocking.call(f"write to {folder}", lambda: _write_and_sync(folder), config.builtin_limit_s)
    except TimeoutError:
        return CheckState.TIMED_OUT, f"writing to {folder} took longer than {config.builtin_limit_s:g} s"
    except OSError as error:
        return CheckState.FAILED, f"{folder} cannot be written: {error.strerror or error}"
    return CheckState.PASSED, f"{folder} can be written"


def _write_and_sync(folder: Path) -> None:
    # Writing is not enough: a file system that went read-only on an error accepts it into the cache.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-") as probe:
        probe.write(b"twinroot\n")
        probe.flush()
        os.fsync(probe.fileno())


async def _systemd(config: ChecksConfig) -> Finding:
    command = [config.systemctl, "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"]
    try:
        ended = await process.run(command, config.builtin_limit_s, UNIT_LIST_BYTES)
    except OSError as error:
        return CheckState.UNKNOWN, f"{config.systemctl} cannot be executed: {error.strerror or error}"
    if ended.code is None:
        return CheckState.TIMED_OUT, f"systemd did not answer within {config.builtin_limit_s:g} s"
    if ended.code != 0:
        return CheckState.UNKNOWN, f"systemd cannot be asked: {config.systemctl} {ended.how}"
    return systemd_finding(ended.output.decode("utf-8", errors="replace"), config.ignored_units)


def systemd_finding(unit_list: str, ignored: frozenset[str]) -> Finding:
    """What the list of failed units says, one a line, its name first."""
    units = [line.split()[0] for line in unit_list.splitlines() if line.strip()]
    failed = [unit for unit in units if unit not in ignored]
    if not failed:
        return CheckState.PASSED, "no failed units"
    return CheckState.FAILED, f"{_several('failed unit', len(failed))}: {_named(failed)}"


async def _disk(config: ChecksConfig, limit: DiskLimit) -> Finding:
    path = limit.path
    try:
        stat = await blocking.call(f"free space of {path}", lambda: os.statvfs(path), config.builtin_limit_s)
    except TimeoutError:
        return CheckState.TIMED_OUT, f"the file system of {path} did not answer"
    except OSError as error:
        return CheckState.FAILED, f"{path} cannot be looked at: {error.strerror or error}"
    return disk_finding(limit, stat)


def disk_finding(limit: DiskLimit, stat: os.statvfs_result) -> Finding:
    """Free space as ordinary users see it; a file system without blocks (proc) or read-only cannot fill."""
    usable = stat.f_blocks - stat.f_bfree + stat.f_bavail
    if stat.f_flag & os.ST_RDONLY or usable <= 0:
        return CheckState.PASSED, f"{limit.path} is read-only and cannot fill"
    free_mib = stat.f_bavail * stat.f_frsize / MIB
    free_percent = 100 * stat.f_bavail / usable
    text = f"{limit.path} has {_space(free_mib)} ({free_percent:.1f} %) free"
    if free_mib < limit.min_free_mib or free_percent < limit.min_free_percent:
        return CheckState.FAILED, f"{text}, less than {limit.min_free_mib:g} MiB or {limit.min_free_percent:g} %"
    return CheckState.PASSED, text


def _space(mib: float) -> str:
    """`412 MiB`, `21.4 GiB`."""
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.3g} GiB"


def _memory(config: ChecksConfig) -> Finding:
    try:
        meminfo = (config.root / "proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        return CheckState.UNKNOWN, f"the kernel does not say how much memory is free: {error.strerror}"
    return memory_finding(meminfo, config.min_memory_percent)


def memory_finding(meminfo: str, min_percent: float) -> Finding:
    """What /proc/meminfo (values in KiB) says of memory that programs can still get."""
    kib: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if number.isdigit():
            kib[name] = int(number)
    total, available = kib.get("MemTotal", 0), kib.get("MemAvailable")
    if total <= 0 or available is None:
        return CheckState.UNKNOWN, "the kernel does not say how much memory is free"
    percent = 100 * available / total
    text = f"{_space(available / 1024)} ({percent:.1f} %) of memory are available"
    if percent < min_percent:
        return CheckState.FAILED, f"{text}, less than {min_percent:g} %"
    return CheckState.PASSED, text


def engine_finding(placement: Placement) -> Finding:
    """Whether the container engine could be read."""
    if placement.known:
        return CheckState.PASSED, f"{placement.engine or 'the container engine'} answers"
    return CheckState.FAILED, placement.reason or "the container engine cannot be read"


def containers_finding(placement: Placement) -> Finding:
    """Containers that should run by their restart policy, and do not."""
    down = [f"{c.name} ({c.state})" for c in placement.containers if c.state in _DOWN_STATES]
    if not down:
        return CheckState.PASSED, "all containers run that the engine should keep running"
    several = _several("container", len(down))
    return CheckState.FAILED, f"{several} not kept running by the engine: {_named(down)}"


def _several(noun: str, count: int) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _named(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
