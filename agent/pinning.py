"""Another key of the server takes the place of the pinned one, when the pinned one signed for it (rule 11)."""

from __future__ import annotations

import logging

import msgspec

from agent.interruptible import interruptible
from agent.phases.inputs import Noted
from agent.state import Identity, StateFolder
from wire.identity import fingerprint

log = logging.getLogger("twinroot.agent")


class ServerKeyNamed(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway named a newer key of the server; `holds`: the pinned key signed for it in this conversation."""

    key: str
    holds: bool


async def take_key(folder: StateFolder, identity: Identity, named: ServerKeyNamed) -> tuple[Identity, Noted | None]:
    """The identity from now on, and what the history keeps of it; None when there is nothing new.

    The new pin is on disk before it is used anywhere. Where the disk does not take it the old one stays, and the
    next connection brings the offer again.
    """
    if named.key == identity.server_key:
        return identity, None
    old, new = fingerprint(identity.server_key), fingerprint(named.key)
    if not named.holds:
        text = f"The gateway named {new} as the server's new key, but {old}, which is pinned, did not sign that"
        return identity, Noted(kind="server-key-refused", text=f"{text}; nothing was changed")
    changed = msgspec.structs.replace(identity, server_key=named.key, replaced_server_key=identity.server_key)
    try:
        await interruptible(lambda: folder.write_identity(changed), lambda: None)
    except OSError as problem:
        text = f"{folder.identity_file} cannot be written: {problem.strerror}; the server's key {old} stays pinned"
        log.error("%s", text)
        return identity, Noted(kind="server-key-refused", text=text)
    return changed, Noted(kind="server-key-changed", text=f"The server's key changed: {new} took the place of {old}")
