"""Checks that the owner of the node brings along, in greenboot's layout: required.d and wanted.d."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.checks import process
from agent.checks.config import ChecksConfig
from wire.messages import Check, CheckState

OUTPUT_BYTES = 4 * 1024
"""How much of a check's output is kept (its end): the wire's limit for one check."""

LAST_WORDS = 160
"""Characters of what a failed check said last that stand in its one line; the output is kept beside it."""

REQUIRED = "required.d"
WANTED = "wanted.d"


@dataclass(frozen=True)
class Script:
    """One executable; `name` is folder and file name, as people see it."""

    name: str
    path: Path
    required: bool


def find_scripts(folders: Sequence[Path]) -> list[Script]:
    """Executables in the folders, required before wanted, each kind sorted by file name."""
    found: dict[str, Script] = {}
    for kind in (REQUIRED, WANTED):
        by_name: dict[str, Path] = {}
        for folder in folders:
            for path in _executables(folder / kind):
                by_name.setdefault(path.name, path)
        for file_name in sorted(by_name):
            name = f"{kind}/{file_name}"
            found[name] = Script(name, by_name[file_name], required=kind == REQUIRED)
    return list(found.values())


def _executables(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.is_file() and os.access(path, os.X_OK)
    ]


async def run_scripts(config: ChecksConfig) -> list[Check]:
    """Run all of them, a few at once; results in the order of `find_scripts`."""
    limit = asyncio.Semaphore(config.scripts_at_once)

    async def one(script: Script) -> Check:
        async with limit:
            return await run_script(script, config.script_limit_s)

    return list(await asyncio.gather(*(one(script) for script in find_scripts(config.folders))))


async def run_script(script: Script, limit_s: float) -> Check:
    """Passed when it exits with code 0 in time. Whatever it left running is killed."""
    started_ms = process.now_ms()
    kind = "required" if script.required else "wanted"
    try:
        ended = await process.run(
            [str(script.path)], limit_s, keep_bytes=2 * OUTPUT_BYTES, environment={"TWINROOT_CHECK": kind}
        )
    except OSError as error:
        return Check(
            name=script.name,
            state=CheckState.FAILED,
            required=script.required,
            text=f"cannot be executed: {error.strerror or error}",
            duration_ms=process.now_ms() - started_ms,
        )
    state = {0: CheckState.PASSED, None: CheckState.TIMED_OUT}.get(ended.code, CheckState.FAILED)
    passed = state is CheckState.PASSED
    how = f"{ended.how} of {limit_s:g} s" if ended.code is None else ended.how
    output = "" if passed else process.readable(ended.output, OUTPUT_BYTES)
    said = last_words(output) if state is CheckState.FAILED else ""
    return Check(
        name=script.name,
        state=state,
        required=script.required,
        text=f"{how}: {said}" if said else how,
        output=output,
        duration_ms=process.now_ms() - started_ms,
    )


def last_words(output: str) -> str:
    """The last line that says something: where programs write why they gave up."""
    line = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return line if len(line) <= LAST_WORDS else line[: LAST_WORDS - 1] + "…"
