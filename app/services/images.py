"""Images: upload one, register one that lies elsewhere, attach a signature made after the upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.config import Settings
from app.core.actors import Actor
from app.core.errors import Invalid, NotFound, NotPossible
from app.core.image_header import read_header
from app.core.image_identity import (
    MAX_IMAGE_BYTES,
    ImageName,
    check_digest,
    check_notes,
    check_size,
    image_name,
)
from app.core.image_match import canonical_arch
from app.ids import new_id
from app.services.blobs import Blobs, Readable
from app.services.image_trust import check_signature, known_keys
from app.store import audit
from app.store import images as store
from app.store.database import Change, Database
from app.store.images import Image
from wire.image_keys import ImageSignature, parse_signature

URL_CHARS = 2048
_EDGES = 50
"""More versions than any way through them names."""


@dataclass(frozen=True, slots=True)
class Description:
    """What an operator says of an image. With an upload, empty names are read from the image itself."""

    os: str = ""
    arch: str = ""
    version: str = ""
    notes: str = ""
    signature: ImageSignature | None = None
    must_pass: tuple[str, ...] = ()
    """Versions one of which must be booted first, or have been passed; none: reached from anywhere."""
    not_from: tuple[str, ...] = ()
    """Versions from which it must not be reached."""


def signature_of(text: str) -> ImageSignature | None:
    """The signature in the text of a `.sig` file, None for no text; Invalid when it is none."""
    if not text.strip():
        return None
    try:
        return parse_signature(text)
    except ValueError as error:
        raise Invalid("signature", f"This is no signature: {error}.") from error


def register(
    db: Database,
    settings: Settings,
    actor: Actor,
    description: Description,
    *,
    digest: str,
    size: int,
    url: str,
    reason: str,
    now: float,
) -> str:
    """Make an image known that lies at `url`; nodes fetch it there. Returns its id.

    Doing it again is fine. Invalid names the wrong input; NotPossible when the name stands for another content.
    """
    name = image_name(description.os, description.arch, description.version)
    content = _Content(check_digest(digest), check_size(size), stored=False, url=_check_url(url))
    return _add(db, settings, actor, name, content, description, reason, now)


def store_upload(
    db: Database,
    settings: Settings,
    actor: Actor,
    stream: Readable,
    description: Description,
    *,
    length: int | None = None,
    digest: str = "",
    reason: str,
    now: float,
    limit: int = MAX_IMAGE_BYTES,
) -> str:
    """Store the image that `stream` carries; returns its id. Nothing stays behind when it is refused.

    `length` and `digest` are what the sender announced, where it did. Errors as `register`, and TooLarge, NoSpace.
    """
    announced = check_digest(digest) if digest else ""
    blobs = Blobs(settings)
    with blobs.receive(stream, now, limit) as received:
        if length is not None and received.size != length:
            text = f"The upload ended after {received.size} of {length} bytes. Nothing was stored: send it again."
            raise Invalid("size", text)
        if announced and received.digest != announced:
            text = f"The upload has {received.digest}, not {announced} as announced. Nothing was stored."
            raise Invalid("digest", text)
        check_size(received.size)
        name = _name_of(description, received.start)
        content = _Content(received.digest, received.size, stored=True, url="")
        check_signature(name, content.digest, content.size, description.signature, known_keys(settings))
        with db.read() as conn:
            _check_name_free(conn, name, content.digest)
        blobs.keep(received)
    return _add(db, settings, actor, name, content, description, reason, now)


def attach_signature(
    db: Database, settings: Settings, actor: Actor, image_id: str, signature: ImageSignature, reason: str, now: float
) -> None:
    """Give an image its detached signature; another one may replace it. Invalid when it does not fit."""
    with db.write() as change:
        image = store.get(change.conn, image_id)
        if image is None:
            raise NotFound("image", image_id)
        check_signature(image.name, image.digest, image.size, signature, known_keys(settings))
        store.set_signature(change.conn, image_id, signature)
        before, after = {"key_id": image.key_id}, {"key_id": signature.key_id}
        audit.append(change.conn, actor, "image.sign", f"image:{image_id}", reason, before, after, now)
        change.touch("images")


def set_edges(
    db: Database,
    actor: Actor,
    image_id: str,
    *,
    must_pass: Sequence[str],
    not_from: Sequence[str],
    reason: str,
    now: float,
) -> None:
    """Which versions lead to the image: one of `must_pass` first (none: from anywhere), and never from `not_from`."""
    with db.write() as change:
        image = store.get(change.conn, image_id)
        if image is None:
            raise NotFound("image", image_id)
        passed = _versions("must_pass", must_pass, image.name)
        barred = _versions("not_from", not_from, image.name)
        store.set_edges(change.conn, image_id, passed, barred)
        before = {"must_pass": list(image.must_pass), "not_from": list(image.not_from)}
        after = {"must_pass": list(passed), "not_from": list(barred)}
        audit.append(change.conn, actor, "image.edges", f"image:{image_id}", reason, before, after, now)
        change.touch("images", "rollouts")


def _versions(field: str, versions: Sequence[str], image: ImageName) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(version.strip() for version in versions if version.strip()))
    if len(named) > _EDGES:
        raise Invalid(field, f"At most {_EDGES} versions are named.")
    for version in named:
        image_name(image.os, image.arch, version)
        if version == image.version:
            raise Invalid(field, f"{version} is the image itself.")
    return named


@dataclass(frozen=True, slots=True)
class _Content:
    digest: str
    size: int
    stored: bool
    url: str


def _add(
    db: Database,
    settings: Settings,
    actor: Actor,
    name: ImageName,
    content: _Content,
    description: Description,
    reason: str,
    now: float,
) -> str:
    check_signature(name, content.digest, content.size, description.signature, known_keys(settings))
    signature = description.signature or ImageSignature("", "")
    image = Image(
        id=new_id("img"),
        os=name.os,
        arch=name.arch,
        version=name.version,
        digest=content.digest,
        size=content.size,
        stored=content.stored,
        url=content.url,
        notes=check_notes(description.notes),
        signature=signature.signature,
        key_id=signature.key_id,
        created_by=actor.name,
        created_at=now,
        withdrawn_at=None,
        must_pass=_versions("must_pass", description.must_pass, name),
        not_from=_versions("not_from", description.not_from, name),
    )
    try:
        return _insert(db, actor, image, reason, now)
    except IntegrityError:  # the same name came in parallel, on PostgreSQL: now it is there to be compared with
        return _insert(db, actor, image, reason, now)


def _insert(db: Database, actor: Actor, image: Image, reason: str, now: float) -> str:
    with db.write() as change:
        if image.stored:
            _tell_stored(change, actor, image.digest, reason, now)
        known = _check_name_free(change.conn, image.name, image.digest)
        if known is not None:
            return _again(change, actor, known, image, reason, now)
        store.add(change.conn, image)
        after = {"name": str(image.name), "digest": image.digest, "size": image.size, "key_id": image.key_id}
        action = "image.upload" if image.stored else "image.register"
        audit.append(change.conn, actor, action, f"image:{image.id}", reason, None, after, now)
        change.touch("images")
    return image.id


def _tell_stored(change: Change, actor: Actor, digest: str, reason: str, now: float) -> None:
    """The content has come: for every image that was known without it."""
    for image_id in store.mark_stored(change.conn, digest):
        before, after = {"stored": False}, {"stored": True}
        audit.append(change.conn, actor, "image.upload", f"image:{image_id}", reason, before, after, now)


def _again(change: Change, actor: Actor, known: Image, image: Image, reason: str, now: float) -> str:
    """The same image once more: it may bring the content or the signature that was missing."""
    if image.signed and image.signed != known.signed:
        store.set_signature(change.conn, known.id, image.signed)
        before, after = {"key_id": known.key_id}, {"key_id": image.key_id}
        audit.append(change.conn, actor, "image.sign", f"image:{known.id}", reason, before, after, now)
    change.touch("images")
    return known.id


def _check_name_free(conn: Connection, name: ImageName, digest: str) -> Image | None:
    """The image of this name if it has this content; NotPossible when it has another."""
    known = store.find(conn, name)
    if known is not None and known.digest != digest:
        text = f"{name} exists already with other content ({known.digest}). Nothing was stored: give it a new version."
        raise NotPossible("version-taken", text)
    return known


def _name_of(description: Description, start: bytes) -> ImageName:
    header = read_header(start)
    return image_name(
        _agree("os", "OS name", description.os.strip(), header.os),
        _agree("arch", "architecture", canonical_arch(description.arch), canonical_arch(header.arch)),
        _agree("version", "version", description.version.strip(), header.version),
    )


def _agree(field: str, noun: str, said: str, found: str) -> str:
    if said and found and said != found:
        raise Invalid(field, f"The image itself says {noun} {found}, not {said}. Nothing was stored.")
    if not said and not found:
        raise Invalid(field, f"The image does not say its {noun}: give it.")
    return said or found


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
    except ValueError as error:
        raise Invalid("url", f"“{url}” is no URL: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > URL_CHARS:
        raise Invalid("url", f"“{url[:100]}” is no http or https URL that a node could fetch.")
    return url.strip()
