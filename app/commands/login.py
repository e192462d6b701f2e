"""`twinroot login-link`: a one-time link into the console."""

from __future__ import annotations

import time
from contextlib import closing

import click

from app.commands.settings import pass_settings
from app.config import Settings
from app.services.sign_in import create_login_link
from app.store.database import open_database


@click.command("login-link")
@click.option("--name", default="operator", show_default=True, help="Whom the history and the audit log will name.")
@pass_settings
def login_link(settings: Settings, name: str) -> None:
    """Print a link that signs in once, within 15 minutes."""
    with closing(open_database(settings.database_url)) as db:
        token = create_login_link(db, name, time.time())
    click.echo(f"{settings.public_url}/sign-in/{token}")
