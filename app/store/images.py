"""Images: what can be run, where it is to be had, and who says so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, func, insert, select, update

from app.core.image_identity import ImageName
from app.core.image_match import Platform
from app.store.schema import images, nodes
from wire.image_keys import ImageSignature


@dataclass(frozen=True, slots=True)
class Image:
    """`stored`: in our own content-addressed store; else only at `url`. Size in bytes."""

    id: str
    os: str
    arch: str
    version: str
    digest: str
    size: int
    stored: bool
    url: str
    notes: str
    signature: str
    key_id: str
    created_by: str
    created_at: float
    withdrawn_at: float | None
    withdrawn_by: str | None = None
    withdrawn_reason: str | None = None
    must_pass: tuple[str, ...] = ()
    """Versions one of which must be booted first, or have been passed; empty: reached from anywhere."""
    not_from: tuple[str, ...] = ()
    """Versions from which it must not be reached."""

    @property
    def name(self) -> ImageName:
        return ImageName(self.os, self.arch, self.version)

    @property
    def key(self) -> tuple[str, str, str]:
        """What nodes that run it report: OS name, architecture, version."""
        return self.os, self.arch, self.version

    @property
    def signed(self) -> ImageSignature | None:
        return ImageSignature(self.key_id, self.signature) if self.signature else None


def add(conn: Connection, image: Image) -> None:
    """IntegrityError when OS name, architecture and version are taken."""
    conn.execute(
        insert(images).values(
            id=image.id,
            os=image.os,
            arch=image.arch,
            version=image.version,
            digest=image.digest,
            size=image.size,
            stored=image.stored,
            url=image.url,
            notes=image.notes,
            signature=image.signature,
            key_id=image.key_id,
            created_by=image.created_by,
            created_at=image.created_at,
            must_pass=list(image.must_pass) or None,
            not_from=list(image.not_from) or None,
        )
    )


def get(conn: Connection, image_id: str, *, lock: bool = False) -> Image | None:
    """`lock`: its row is ours until the end of the transaction: nobody withdraws it meanwhile."""
    query = select(images).where(images.c.id == image_id)
    row = conn.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    return None if row is None else _image(row)


def of_ids(conn: Connection, image_ids: Collection[str]) -> dict[str, Image]:
    """Those of a few images that exist, by id."""
    rows = conn.execute(select(images).where(images.c.id.in_(sorted(image_ids)))) if image_ids else ()
    return {row.id: _image(row) for row in rows}


def find(conn: Connection, name: ImageName) -> Image | None:
    row = conn.execute(
        select(images).where(images.c.os == name.os, images.c.arch == name.arch, images.c.version == name.version)
    ).one_or_none()
    return None if row is None else _image(row)


def of_version(conn: Connection, version: str) -> list[Image]:
    """Images of this version that are not withdrawn, one of each OS and architecture."""
    query = select(images).where(images.c.version == version, images.c.withdrawn_at.is_(None))
    return [_image(row) for row in conn.execute(query.order_by(images.c.os, images.c.arch))]


def of_digest(conn: Connection, digest: str) -> list[Image]:
    """Images with this content that are not withdrawn, the oldest first."""
    query = select(images).where(images.c.digest == digest, images.c.withdrawn_at.is_(None))
    return [_image(row) for row in conn.execute(query.order_by(images.c.created_at, images.c.id))]


def set_edges(conn: Connection, image_id: str, must_pass: Sequence[str], not_from: Sequence[str]) -> None:
    values = {"must_pass": list(must_pass) or None, "not_from": list(not_from) or None}
    conn.execute(update(images).where(images.c.id == image_id).values(**values))


def withdraw(conn: Connection, image_id: str, by: str, reason: str, now: float) -> bool:
    """Withdraw it; False when it was already."""
    withdrawn = conn.execute(
        update(images)
        .where(images.c.id == image_id, images.c.withdrawn_at.is_(None))
        .values(withdrawn_at=now, withdrawn_by=by, withdrawn_reason=reason)
    )
    return withdrawn.rowcount == 1


def restore(conn: Connection, image_id: str) -> bool:
    """It is not withdrawn any more; False when it was not."""
    restored = conn.execute(
        update(images)
        .where(images.c.id == image_id, images.c.withdrawn_at.is_not(None))
        .values(withdrawn_at=None, withdrawn_by=None, withdrawn_reason=None)
    )
    return restored.rowcount == 1


def newest(conn: Connection, *, os: str | None = None, limit: int = 200) -> list[Image]:
    """The youngest first; those of one OS name where given."""
    query = select(images).order_by(images.c.created_at.desc(), images.c.id.desc()).limit(limit)
    if os is not None:
        query = query.where(images.c.os == os)
    return [_image(row) for row in conn.execute(query)]


def mark_stored(conn: Connection, digest: str) -> list[str]:
    """The content is in our store now, under whatever names it has; the ids of the images that gained it."""
    lacking = images.c.digest == digest, images.c.stored.is_(False)
    ids = list(conn.execute(select(images.c.id).where(*lacking).order_by(images.c.id).with_for_update()).scalars())
    if ids:
        conn.execute(update(images).where(images.c.id.in_(ids)).values(stored=True))
    return ids


def set_signature(conn: Connection, image_id: str, signature: ImageSignature) -> None:
    conn.execute(
        update(images).where(images.c.id == image_id).values(signature=signature.signature, key_id=signature.key_id)
    )


def platforms(conn: Connection) -> list[Platform]:
    """OS names and architectures that there are images for."""
    query = select(images.c.os, images.c.arch).distinct().order_by(images.c.os, images.c.arch)
    return [Platform(*row) for row in conn.execute(query)]


def adoption(conn: Connection) -> dict[tuple[str, str, str], int]:
    """How many nodes that are not retired run each OS name, architecture and version (see `Image.key`).

    Counted by version and not by digest, as the list of nodes that the count links to is.
    """
    query = (
        select(nodes.c.os_id, nodes.c.arch, nodes.c.version, func.count())
        .where(nodes.c.version != "", nodes.c.admission != "retired")
        .group_by(nodes.c.os_id, nodes.c.arch, nodes.c.version)
    )
    return {(os, arch, version): count for os, arch, version, count in conn.execute(query)}


def _image(row: Row[tuple[object, ...]]) -> Image:
    return Image(
        id=row.id,
        os=row.os,
        arch=row.arch,
        version=row.version,
        digest=row.digest,
        size=row.size,
        stored=row.stored,
        url=row.url,
        notes=row.notes,
        signature=row.signature,
        key_id=row.key_id,
        created_by=row.created_by,
        created_at=row.created_at,
        withdrawn_at=row.withdrawn_at,
        withdrawn_by=row.withdrawn_by,
        withdrawn_reason=row.withdrawn_reason,
        must_pass=tuple(row.must_pass or ()),
        not_from=tuple(row.not_from or ()),
    )
