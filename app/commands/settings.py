"""Settings are read when a command runs, and not before: `--help` needs none and leaves nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import click

from app.config import Settings, load_settings

P = ParamSpec("P")
R = TypeVar("R")


def pass_settings(command: Callable[Concatenate[Settings, P], R]) -> Callable[P, R]:
    """Give the command the settings of its context, else those of the environment, of a control plane that is there:
    reading makes no folder and no database. Misconfigured."""
    return _passing(command, existing=True)


def pass_first_settings(command: Callable[Concatenate[Settings, P], R]) -> Callable[P, R]:
    """The same for commands that make the data folder and the database where there are none. Misconfigured."""
    return _passing(command, existing=False)


def _passing(command: Callable[Concatenate[Settings, P], R], *, existing: bool) -> Callable[P, R]:
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        settings = click.get_current_context().find_object(Settings) or load_settings(existing=existing)
        return command(settings, *args, **kwargs)

    return run
