"""`twinroot image keygen | sign | verify`: detached signatures, made and checked without any server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from app.commands.output import file_text
from app.core.errors import Invalid, NotPossible
from app.core.image_header import HEADER_BYTES, read_header
from app.core.image_identity import ImageName, image_name
from wire import identity
from wire.image_keys import ImageSignature, parse_public_key, parse_signature, public_key_line, signature_line

T = TypeVar("T")

PRIVATE_TAG = "twinroot-image-key.v1"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("private_key", type=click.Path(path_type=Path))
@click.option("--comment", default="", help="Whose key it is; stands in the public line.")
def keygen(private_key: Path, comment: str) -> None:
    """Make a key pair: the private key in PRIVATE_KEY, the public line on standard output.

    The public line belongs into a file NAME.pub in each node's folder of image keys.
    """
    private = identity.new_private_key()
    try:
        handle = os.open(private_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise NotPossible("exists", f"{private_key} exists already; no key was made.") from error
    except OSError as error:
        raise NotPossible("unwritable", f"{private_key} cannot be written: {error.strerror}.") from error
    with os.fdopen(handle, "w") as out:
        out.write(f"{PRIVATE_TAG} {private}\n")
    click.echo(public_key_line(identity.public_key(private), comment), nl=False)


@click.command()
@click.argument("image", type=FILE)
@click.option("--key", required=True, type=FILE, help="The private key file.")
@click.option("--os", "os_name", default="", help="OS name; else read from the image.")
@click.option("--arch", default="", help="Architecture; else read from the image.")
@click.option("--version", default="", help="Version; else read from the image.")
def sign(image: Path, key: Path, os_name: str, arch: str, version: str) -> None:
    """Write IMAGE.sig, the signature of the image's names, digest and size."""
    private = _private_key(key)
    statement = _statement(image, _names(image, os_name, arch, version))
    signature = ImageSignature(identity.key_id(identity.public_key(private)), identity.sign(private, statement))
    target = image.with_name(image.name + ".sig")
    target.write_text(signature_line(signature))
    click.echo(f"{target} is by key {signature.key_id}.")


@click.command()
@click.argument("image", type=FILE)
@click.argument("signature", type=FILE, required=False)
@click.option("--key", required=True, type=FILE, help="The public key file, NAME.pub.")
@click.option("--os", "os_name", default="", help="OS name; else read from the image.")
@click.option("--arch", default="", help="Architecture; else read from the image.")
@click.option("--version", default="", help="Version; else read from the image.")
def verify(image: Path, signature: Path | None, key: Path, os_name: str, arch: str, version: str) -> None:
    """Check IMAGE against SIGNATURE (IMAGE.sig unless given); exits 1 when it does not hold."""
    public = _parsed(parse_public_key, key)
    signed = _parsed(parse_signature, signature or image.with_name(image.name + ".sig"))
    name = _names(image, os_name, arch, version)
    if not identity.verify(public, signed.signature, _statement(image, name)):
        raise NotPossible("bad-signature", f"The signature of {name} does not hold with {key}.")
    click.echo(f"{name}: good signature by key {signed.key_id}.")


def _parsed(parse: Callable[[str], T], file: Path) -> T:
    try:
        return parse(file_text(file))
    except ValueError as error:
        raise Invalid("file", f"{file}: {error}.") from error


def _private_key(file: Path) -> str:
    words = file_text(file).split()
    if len(words) != 2 or words[0] != PRIVATE_TAG:
        raise Invalid("key", f"{file} is no private image key: make one with `twinroot image keygen`.")
    try:
        identity.public_key(words[1])
    except ValueError as error:
        raise Invalid("key", f"{file} is damaged: {error}.") from error
    return words[1]


def _names(image: Path, os_name: str, arch: str, version: str) -> ImageName:
    with image.open("rb") as file:
        header = read_header(file.read(HEADER_BYTES))
    return image_name(os_name or header.os, arch or header.arch, version or header.version)


def _statement(image: Path, name: ImageName) -> bytes:
    with image.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return identity.image_statement(name.os, name.arch, name.version, digest, image.stat().st_size)
