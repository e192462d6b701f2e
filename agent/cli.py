"""`twinroot-agent join | run | status | inhibit`. Failures are one line on stderr and exit code 1."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from agent import config as configuration
from agent import facts, wiring
from agent.config import Config
from agent.drivers.base import DriverError
from agent.errors import AgentError, ConfigError
from agent.inhibit import Inhibitor, user_name
from agent.join import Request, join
from agent.phases.spans import span
from agent.state import StateFolder
from agent.status import STALE_S, Shown
from wire.messages import HealthState

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(wiring.agent_version(), prog_name="twinroot-agent")
def cli() -> None:
    """The node agent of Twinroot."""


config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help=f"Configuration file. Else ${configuration.VARIABLE}, else {configuration.DEFAULT_FILE}.",
)


# --- join ---------------------------------------------------------------------------------------------------


@cli.command("join")
@click.argument("url")
@click.argument("token")
@click.option("--fingerprint", required=True, help="Of the server's key: sha256:… as the console prints it.")
@click.option("--name", default="", help="Name of the node; the host name when not given.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given several times.")
@click.option("--again", is_flag=True, help="Join although this machine has joined: a new node replaces the old.")
@config_option
def join_command(
    url: str,
    token: str,
    fingerprint: str,
    name: str,
    labels: tuple[str, ...],
    again: bool,
    config_file: Path | None,
) -> None:
    """Join the fleet behind URL with TOKEN. Repeating a join that was cut off is safe."""
    config = _load(config_file)
    configuration.check_url(url, allow_unencrypted=config.allow_unencrypted)
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", fingerprint):
        raise ConfigError("--fingerprint: must be sha256: and 64 hex digits, as the console prints it")
    folder = StateFolder(config.state_folder)
    folder.open()
    try:
        joined = asyncio.run(_join(config, folder, url, token, fingerprint, name, _labels(config, labels), again))
    finally:
        folder.close()
    click.echo(f"joined as {joined}")


async def _join(
    config: Config,
    folder: StateFolder,
    url: str,
    token: str,
    fingerprint: str,
    name: str,
    labels: dict[str, str],
    again: bool,
) -> str:
    machine_id, hardware = wiring.who_is_this(config)
    request = Request(
        url=url,
        token=token,
        fingerprint=fingerprint,
        name=name or socket.gethostname(),
        labels=labels,
        machine_id=machine_id,
        hardware=hardware,
        os=await wiring.make_driver(config).os(),
        agent_version=wiring.agent_version(),
    )
    joined = await join(folder, request, again=again)
    waits = "; an operator has to approve it" if joined.admission == "pending" else ""
    return f"{joined.node_id} ({request.name}){waits}"


def _labels(config: Config, given: Sequence[str]) -> dict[str, str]:
    labels = dict(config.labels)
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--label: {text!r} is not KEY=VALUE")
        configuration.check_label(key, value)
        labels[key] = value
    return labels


# --- run ----------------------------------------------------------------------------------------------------


@cli.command("run")
@config_option
def run_command(config_file: Path | None) -> None:
    """Run the agent until SIGTERM."""
    config = _load(config_file)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    folder = StateFolder(config.state_folder)
    folder.open()
    try:
        asyncio.run(_run(config, folder))
    except ExceptionGroup as group:
        raise _only(group) from group
    finally:
        folder.close()


async def _run(config: Config, folder: StateFolder) -> None:
    runner = wiring.make_runner(config, folder)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runner.stop)
    await runner.run()


def _only(group: ExceptionGroup[Exception]) -> Exception:
    """The one exception of a group, where it is one: its own words are clearer."""
    found: Exception = group
    while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found


# --- status -------------------------------------------------------------------------------------------------


@cli.command("status")
@click.option("--json", "as_json", is_flag=True, help="The whole of it as JSON.")
@config_option
def status_command(as_json: bool, config_file: Path | None) -> None:
    """Show what the running agent knows. Exit code 1 when it does not run, 3 when the node is unhealthy."""
    config = _load(config_file)
    path = config.run_folder / wiring.STATUS
    try:
        raw = path.read_bytes()
    except FileNotFoundError as problem:
        raise AgentError(f"the agent does not run: there is no {path}") from problem
    except OSError as problem:
        raise AgentError(f"{path} cannot be read: {problem.strerror}") from problem
    shown = msgspec.json.decode(raw, type=Shown)
    age_s = time.time() - shown.at
    if age_s > STALE_S:
        raise AgentError(f"the agent does not run: {path} is {span(age_s)} old")
    if as_json:
        click.echo(msgspec.json.format(raw, indent=2).decode())
    else:
        click.echo("\n".join(status_lines(shown)))
    if shown.health.state is HealthState.UNHEALTHY:
        sys.exit(3)


def status_lines(shown: Shown) -> list[str]:
    """The status for people, a fact a line."""
    link = shown.link + (f": {shown.link_text}" if shown.link_text else "")
    activity = shown.activity
    lines = [
        f"node      {shown.name} ({shown.node_id})",
        f"gateway   {shown.url} {link}" + (" IDENTITY CONFLICT" if shown.conflict else ""),
        f"health    {shown.health.state}" + "".join(f"\n          {reason}" for reason in shown.health.reasons),
    ]
    for slot in shown.slots:
        marks = [
            word for word, true in (("booted", slot.booted), ("next boot", slot.next_boot), ("good", slot.good)) if true
        ]
        lines.append(f"slot {slot.name:<5}{slot.version or '-'}" + (f"  [{', '.join(marks)}]" if marks else ""))
    target = f" to {activity.target}" if activity.target else ""
    progress = f" {activity.progress:.0%}" if activity.progress is not None else ""
    lines.append(f"phase     {activity.phase}{target}{progress}")
    lines += [f"hold      {hold.text}" for hold in activity.holds]
    if activity.outcome is not None:
        outcome = activity.outcome
        lines.append(f"last      {outcome.result} {outcome.version} {outcome.reason}".rstrip())
    lines.append(
        f"services  {shown.containers} containers" if shown.placement_known else f"services  {shown.placement_reason}"
    )
    return lines


# --- inhibit ------------------------------------------------------------------------------------------------


@cli.command("inhibit", context_settings={"ignore_unknown_options": False})
@click.option("--why", help="The reason, shown to operators.")
@click.option("--for", "duration", metavar="SPAN", help="For how long: 90s, 30min, 2h, 1d. Else until released.")
@click.option("--list", "lists", is_flag=True, help="List those that hold.")
@click.option("--release", metavar="ID", help="End one.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@config_option
def inhibit_command(
    why: str | None,
    duration: str | None,
    lists: bool,
    release: str | None,
    command: tuple[str, ...],
    config_file: Path | None,
) -> None:
    """Keep the agent from rebooting: for a span, until released, or while COMMAND runs (after --)."""
    wanted = [option for option, given in (("--why", why), ("--list", lists), ("--release", release)) if given]
    if len(wanted) != 1:
        raise AgentError("give one of --why, --list and --release")
    kept = wiring.inhibitors(_load(config_file))
    now_s = facts.boottime_now()
    if lists:
        for inhibitor in kept.present(now_s):
            click.echo(_line(inhibitor, now_s))
    elif release:
        kept.release(release)
    else:
        assert why is not None
        until_s = now_s + parse_span(duration) if duration else None
        if command:
            inhibitor = kept.add(why, by=user_name(), until_s=until_s, pid=os.getpid())
            try:
                code = _execute(command)
            finally:
                kept.release(inhibitor.id)
            sys.exit(code)
        click.echo(kept.add(why, by=user_name(), until_s=until_s).id)


def _execute(command: Sequence[str]) -> int:
    """Exit code of `command`, as a shell would give it."""
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as problem:
        raise AgentError(f"{command[0]} cannot be run: {problem.strerror}") from problem
    return code if code >= 0 else 128 - code


def _line(inhibitor: Inhibitor, now_s: float) -> str:
    left = "until released" if inhibitor.until_s is None else f"for {span(inhibitor.until_s - now_s)}"
    if inhibitor.pid is not None:
        left = f"while process {inhibitor.pid} runs"
    return f"{inhibitor.id}  {inhibitor.why}  ({inhibitor.by}, {left})"


def parse_span(text: str) -> float:
    """Seconds of `90s`, `30min`, `2h`, `1d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|m|h|d)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f"--for: {text!r} is no span; write 90s, 30min, 2h or 1d")
    return float(found[1]) * UNITS[found[2]]


# --- all ----------------------------------------------------------------------------------------------------


def _load(config_file: Path | None) -> Config:
    return configuration.load(configuration.find(config_file))


def main() -> NoReturn:
    """Entry point: errors that words can tell are told in one line."""
    try:
        cli.main(prog_name="twinroot-agent", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except (AgentError, DriverError) as error:
        _fail(error.text)
    sys.exit(0)


def _fail(text: str, code: int = 1) -> NoReturn:
    print(f"twinroot-agent: {text}", file=sys.stderr)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """What is wrong with the words of a command, and where they are explained, in one line."""
    said = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if context is None:
        return said
    return f"{said if said.endswith(('.', '?', '?)')) else said + '.'} See {context.command_path} --help."


if __name__ == "__main__":
    main()
