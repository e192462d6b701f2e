"""`twinroot …`: every failure is one clear line on stderr and a non-zero exit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import click
from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.commands.settings import pass_first_settings
from app.config import Settings
from app.core.errors import TwinrootError
from app.store.outage import is_away


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="twinroot", message="%(version)s")
def cli() -> None:
    """The web control plane for fleets of Linux nodes with two root file systems."""
    logs.configure()


def _process(name: str, help_text: str) -> None:
    @cli.command(name, help=help_text)
    @pass_first_settings
    def run(settings: Settings) -> None:
        from app import processes  # the web stack takes half a second to import; other commands need none of it

        start: Callable[[Settings], None] = getattr(processes, name)
        start(settings)


_process("up", "Run web, gateway and conductor in one process; prints a one-time sign-in link.")
_process("web", "Run the console's web process.")
_process("gateway", "Run the process that holds the websockets of nodes and browsers.")
_process("conductor", "Run the process that reconciles.")


@cli.command()
@pass_first_settings
def migrate(settings: Settings) -> None:
    """Bring the database to this version's tables."""
    from app.processes import migrate_and_prepare

    migrate_and_prepare(settings)
    click.echo("The database is up to date.")


@cli.command()
@click.option("--nodes", type=click.IntRange(1, 200), default=12, show_default=True, help="How many demo nodes.")
def demo(nodes: int) -> None:
    """Console, gateway, conductor and a live demo fleet of real agents; Ctrl-C stops all of it."""
    from sim.demo import run_demo

    run_demo(nodes)


def _mount() -> None:
    from app.commands import (
        channels,
        doctor,
        groups,
        images,
        join_tokens,
        login,
        plan,
        policy,
        server_keys,
        sim,
        ways_back,
    )

    cli.add_command(images.image)
    cli.add_command(channels.channel)
    cli.add_command(join_tokens.join_token)
    cli.add_command(login.login_link)
    cli.add_command(plan.plan)
    cli.add_command(policy.policy)
    cli.add_command(server_keys.server_key)
    cli.add_command(groups.group)
    cli.add_command(ways_back.rollout)
    cli.add_command(ways_back.node)
    cli.add_command(groups.freeze)
    cli.add_command(groups.thaw)
    cli.add_command(doctor.doctor)
    cli.add_command(sim.sim)


def main() -> None:
    """Entry point: words every failure once, for every command."""
    _mount()
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage(error), error.exit_code)
    except TwinrootError as error:
        _fail(str(error))
    except SQLAlchemyError as error:
        _fail(_database(error))
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(text: str, code: int = 1) -> NoReturn:
    click.echo("twinroot: " + " ".join(text.split()), err=True)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    said = error.format_message()
    if context is None:
        return said
    return f"{said if said.endswith(('.', '?', '?)')) else said + '.'} See {context.command_path} --help."


def _database(error: SQLAlchemyError) -> str:
    what = str(error).splitlines()[0]
    if any(sign in what for sign in ("no such table", "UndefinedTable")):
        return "The database has no tables yet: run twinroot migrate."
    return f"The database {'cannot be reached' if is_away(error) else 'refused this'}: {what}"


if __name__ == "__main__":
    main()
