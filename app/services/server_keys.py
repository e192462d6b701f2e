"""The keys with which this server proves itself to nodes (rule 11); made here, sealed at rest.

Rotation: a new key is added and named to every node by the key that it pins; once no node pins the old one any
more, it is retired. Until then the server has both, and proves itself with whichever a node pins.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken

from app.config import Settings
from app.core.actors import Actor, ActorKind
from app.core.errors import Invalid, Misconfigured, NotFound, NotPossible
from app.services.secret_keys import derived_key
from app.store import audit
from app.store import server_keys as store
from app.store.database import Change, Database
from wire.identity import fingerprint, new_private_key
from wire.identity import public_key as public_of

_SETUP = Actor(ActorKind.COMMAND, "setup", "first start")

_NEWER_S = 0.001
"""A new key is newer than the last one although the clock was set back in between."""

_NAMED = 20
"""Nodes that are named when a key cannot be retired; the rest is counted."""

_ABBREVIATION = 8
"""Fewest hex digits of a fingerprint that name a key."""


@dataclass(frozen=True, slots=True)
class ServerKey:
    public_key: str
    private_key: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """All keys that are not retired, the oldest first; there is always one."""

    keys: tuple[ServerKey, ...]

    @property
    def newest(self) -> ServerKey:
        """Of join commands, and what every node shall pin."""
        return self.keys[-1]

    def pinned(self, wanted: str | None) -> ServerKey | None:
        """The key with this fingerprint; the oldest for a node that names none."""
        if wanted is None:
            return self.keys[0]
        return next((key for key in self.keys if key.fingerprint == wanted), None)

    def of(self, public_key: str) -> ServerKey | None:
        return next((key for key in self.keys if key.public_key == public_key), None)


def current_key(db: Database, settings: Settings, now: float) -> ServerKey:
    """The newest key pair; errors as in `live_keys`."""
    return live_keys(db, settings, now).newest


def live_keys(db: Database, settings: Settings, now: float) -> ServerKeys:
    """All key pairs, the first one made when there is none.

    Misconfigured when `TWINROOT_SECRET_KEY` is not the one they were sealed with.
    """
    with db.read() as conn:
        sealed = store.live(conn)
    if not sealed:
        sealed = _make_first(db, settings, now)
    return ServerKeys(tuple(_open(each, settings) for each in sealed))


def check_sealed(db: Database, settings: Settings) -> int:
    """How many keys there are, all of which our secret opens; Misconfigured when it does not. Makes none."""
    with db.read() as conn:
        sealed = store.live(conn)
    return len([_open(each, settings) for each in sealed])


def _make_first(db: Database, settings: Settings, now: float) -> list[store.SealedKey]:
    with db.write() as change:
        store.lock(change.conn)
        others = store.live(change.conn)  # another process may have been first
        if others:
            return others
        return [_add(change, settings, _SETUP, "server-key.create", "no server key yet", None, now)]


def rotate(db: Database, settings: Settings, actor: Actor, *, reason: str, now: float) -> ServerKey:
    """A new key, which all nodes are told to pin; the old ones stay until they are retired.

    Misconfigured as in `live_keys`: a key sealed with another secret would stop every gateway.
    """
    live_keys(db, settings, now)
    with db.write() as change:
        store.lock(change.conn)
        newest = store.live(change.conn)[-1]
        created_at = max(now, newest.created_at + _NEWER_S)
        sealed = _add(change, settings, actor, "server-key.rotate", reason, newest, now, created_at)
    return _open(sealed, settings)


def _add(
    change: Change,
    settings: Settings,
    actor: Actor,
    action: str,
    reason: str,
    before: store.SealedKey | None,
    now: float,
    created_at: float | None = None,
) -> store.SealedKey:
    private = new_private_key()
    sealed_private = _box(settings).encrypt(private.encode()).decode()
    sealed = store.SealedKey(public_of(private), sealed_private, now if created_at is None else created_at)
    store.add(change.conn, sealed)
    name = fingerprint(sealed.public_key)
    former = {"fingerprint": fingerprint(before.public_key)} if before else None
    audit.append(change.conn, actor, action, f"server-key:{name}", reason, former, {"fingerprint": name}, now)
    change.touch("joining")
    return sealed


def retire(db: Database, actor: Actor, wanted: str, *, force: bool = False, reason: str, now: float) -> list[str]:
    """End a key, named by (the beginning of) its fingerprint; returns the nodes that still pinned it.

    NotPossible when it is the newest, has ended already, or nodes still pin it and `force` is not given: with it
    they have to join again. Join commands that name it end with it.
    """
    with db.write() as change:
        store.lock(change.conn)
        keys = store.listed(change.conn)
        key = named(keys, wanted)
        if key.retired_at is not None:
            raise NotPossible("retired", "This key was retired already; nothing was changed.")
        if key is [each for each in keys if each.retired_at is None][-1]:
            raise NotPossible("newest", "This is the key that nodes are to pin: make a new one first (rotate).")
        store.retire(change.conn, key.public_key, now)  # first, so that whoever joins under it is seen or refused
        pinning = store.nodes_pinning(change.conn, key.public_key)
        if pinning and not force:
            raise NotPossible("pinned", _still_pinned(pinning))
        after = {"retired_at": now, "nodes_that_must_join_again": pinning}
        name = f"server-key:{fingerprint(key.public_key)}"
        audit.append(change.conn, actor, "server-key.retire", name, reason, {"retired_at": None}, after, now)
        change.touch("joining")
    return pinning


def named(keys: Sequence[store.ListedKey], wanted: str) -> store.ListedKey:
    """The one key whose fingerprint begins so, with or without `sha256:`. Invalid, NotFound."""
    digits = wanted.strip().lower().removeprefix("sha256:")
    if len(digits) < _ABBREVIATION:
        raise Invalid("fingerprint", f"Name the key by at least {_ABBREVIATION} hex digits of its fingerprint.")
    found = [key for key in keys if fingerprint(key.public_key).removeprefix("sha256:").startswith(digits)]
    if not found:
        raise NotFound("server key", wanted)
    if len(found) > 1:
        raise Invalid("fingerprint", f"“{wanted}” names {len(found)} keys: give more of the fingerprint.")
    return found[0]


def _still_pinned(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    count = "1 node still pins" if len(names) == 1 else f"{len(names)} nodes still pin"
    return (
        f"{count} this key, as far as we have seen: {', '.join(names[:_NAMED])}{more}. Nothing was changed. "
        "They come under the newest key once they have been connected; forced, they would have to join again."
    )


def _open(sealed: store.SealedKey, settings: Settings) -> ServerKey:
    try:
        private = _box(settings).decrypt(sealed.sealed_private_key.encode()).decode()
    except InvalidToken as error:
        raise Misconfigured(
            "TWINROOT_SECRET_KEY",
            "is not the secret that the server key in the database was sealed with; set it to the former secret",
        ) from error
    return ServerKey(sealed.public_key, private)


def _box(settings: Settings) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derived_key(settings, "server key")))
