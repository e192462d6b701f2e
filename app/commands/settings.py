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
    """Give the command the settings of its context, else those of the environment. Misconfigured."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        settings = click.get_current_context().find_object(Settings) or load_settings()
        return command(settings, *args, **kwargs)

    return run
