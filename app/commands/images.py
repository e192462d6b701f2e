"""`twinroot image`: make images known, and sign them."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import click

from app.commands.image_signing import FILE, keygen, sign, verify
from app.commands.output import file_text, moment, print_columns
from app.commands.policy import command_actor
from app.commands.remote_upload import send
from app.commands.settings import pass_settings
from app.config import Settings
from app.services import images
from app.services.images import Description, signature_of
from app.store import images as store
from app.store.database import open_database


@click.group()
def image() -> None:
    """OS images: upload, register, list, sign."""


image.add_command(keygen)
image.add_command(sign)
image.add_command(verify)


@image.command()
@click.argument("file", type=FILE)
@click.option("--os", "os_name", default="", help="OS name, as ID in os-release; else read from the image.")
@click.option("--arch", default="", help="Architecture; else read from the image.")
@click.option("--version", default="", help="Version; else read from the image.")
@click.option("--notes", default="", help="What operators should know of it.")
@click.option("--signature", type=FILE, help="Detached signature; FILE.sig is taken when it is there.")
@click.option("--to", "link", help="A one-time sign-in link of a console elsewhere: send the image there.")
@click.option("--reason", default="", help="Kept in the audit log.")
def upload(
    file: Path,
    os_name: str,
    arch: str,
    version: str,
    notes: str,
    signature: Path | None,
    link: str | None,
    reason: str,
) -> None:
    """Store an image: into this machine's data folder, or with --to over the network. Prints its id."""
    beside = file.with_name(file.name + ".sig")
    signature_file = signature or (beside if beside.exists() else None)
    text = file_text(signature_file) if signature_file else ""
    description = Description(os_name, arch, version, notes, signature_of(text))
    if link:
        click.echo(send(link, file, description, text, reason))
        return
    _store(file, description, reason)


@pass_settings
def _store(settings: Settings, file: Path, description: Description, reason: str) -> None:
    with closing(open_database(settings.database_url)) as db, file.open("rb") as stream:
        size = file.stat().st_size
        image_id = images.store_upload(
            db, settings, command_actor(), stream, description, length=size, reason=reason, now=time.time()
        )
    click.echo(image_id)


@image.command()
@click.option("--os", "os_name", required=True, help="OS name, as ID in os-release.")
@click.option("--arch", required=True, help="Architecture: amd64, arm64, …")
@click.option("--version", required=True)
@click.option("--url", required=True, help="Where nodes fetch it.")
@click.option("--digest", required=True, help="SHA-256 of the file.")
@click.option("--size", required=True, type=int, help="Bytes of the file.")
@click.option("--notes", default="", help="What operators should know of it.")
@click.option("--signature", type=FILE, help="Detached signature.")
@click.option("--reason", default="", help="Kept in the audit log.")
@pass_settings
def register(
    settings: Settings,
    os_name: str,
    arch: str,
    version: str,
    url: str,
    digest: str,
    size: int,
    notes: str,
    signature: Path | None,
    reason: str,
) -> None:
    """Make an image known that lies elsewhere; prints its id."""
    signed = signature_of(file_text(signature)) if signature else None
    description = Description(os_name, arch, version, notes, signed)
    with closing(open_database(settings.database_url)) as db:
        image_id = images.register(
            db,
            settings,
            command_actor(),
            description,
            digest=digest,
            size=size,
            url=url,
            reason=reason,
            now=time.time(),
        )
    click.echo(image_id)


@image.command("attach-signature")
@click.argument("image_id")
@click.argument("signature", type=FILE)
@click.option("--reason", default="", help="Kept in the audit log.")
@pass_settings
def attach_signature(settings: Settings, image_id: str, signature: Path, reason: str) -> None:
    """Give an image that is here already its detached signature."""
    signed = signature_of(file_text(signature))
    if signed is None:
        raise click.BadParameter(f"{signature} is empty")
    with closing(open_database(settings.database_url)) as db:
        images.attach_signature(db, settings, command_actor(), image_id, signed, reason, time.time())
    click.echo(f"{image_id} is signed by key {signed.key_id}.")


@image.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Print the images, the youngest first."""
    with closing(open_database(settings.database_url)) as db, db.read() as conn:
        found = store.newest(conn)
    rows = [
        (one.id, one.os, one.arch, one.version, str(one.size), one.digest, one.key_id, moment(one.created_at))
        for one in found
    ]
    print_columns(("ID", "OS", "ARCH", "VERSION", "BYTES", "DIGEST", "SIGNED BY", "SINCE"), rows)
