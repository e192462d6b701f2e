"""The opening of a node's connection: prove who you are, both ways, before anything else (rule 11)."""

from __future__ import annotations

import asyncio
import time

import msgspec
from websockets.asyncio.server import ServerConnection

from app.gateway.dispatch import REFUSALS, welcome_for
from app.gateway.link import NodeLink
from app.gateway.parts import Parts
from app.ids import new_id
from app.services import connections, joining
from app.services.connections import Answer, Claim, End, Gone, Verdict
from app.services.server_keys import ServerKey
from wire.close import CloseCode, WireError
from wire.conversation import ServerEnd
from wire.messages import MAX_FRAME_BYTES, FromNode, Hello, Join, Joined, JoinHello, Refused, Welcome


async def open_link(parts: Parts, connection: ServerConnection, remote: str) -> NodeLink | None:
    """The proved connection of a node, registered and welcomed; None when the conversation has ended (a join, a
    refusal). Raises WireError, ConnectionClosed."""
    keys = parts.keyring.keys
    while keys is None:  # the database was never there since we started; the caller has a time limit
        await asyncio.sleep(parts.limits.claim_again_s)
        keys = parts.keyring.keys
    end = ServerEnd(keys.newest.private_key, parts.name)
    greeting = await _receive(connection, end)
    assert isinstance(greeting, Hello | JoinHello), "the conversation's table allows nothing else"
    key = await parts.keyring.pinned(greeting.server_fingerprint)
    if isinstance(greeting, JoinHello):
        await _join(parts, connection, end, remote, key)
        return None
    return await _connect(parts, connection, end, greeting, remote, key)


async def _receive(connection: ServerConnection, end: ServerEnd) -> FromNode:
    while True:
        message = end.receive(await connection.recv(decode=False))
        if message is not None:
            return message


async def _send(connection: ServerConnection, frames: list[str]) -> None:
    for frame in frames:
        await connection.send(frame)


async def _join(parts: Parts, connection: ServerConnection, end: ServerEnd, remote: str, key: ServerKey | None) -> None:
    try:
        joined = await _joined(parts, connection, end, remote, key)
    except joining.JoinRefused as refusal:
        last_words = end.refused(Refused(code=refusal.code, text=refusal.text))
        await parts.closer.close_and_wait(
            connection, CloseCode.JOIN_REFUSED, refusal.text, who=remote, last_words=last_words
        )
        return
    await _send(connection, end.joined(joined))


async def _joined(
    parts: Parts, connection: ServerConnection, end: ServerEnd, remote: str, key: ServerKey | None
) -> Joined:
    if key is None:
        raise await parts.threads.until_done(lambda: joining.refuse_server_key(parts.db, remote, time.time()))
    await _send(connection, end.challenge(None, key.private_key))
    join = await _receive(connection, end)
    assert isinstance(join, Join), "the conversation's table allows nothing else"
    return await parts.threads.until_done(
        lambda: joining.admit_join(parts.db, join, remote, key.public_key, time.time())
    )


async def _connect(
    parts: Parts, connection: ServerConnection, end: ServerEnd, hello: Hello, remote: str, key: ServerKey | None
) -> NodeLink | None:
    identity = await parts.lookups.get(hello.node_id)
    refusal = connections.standing_of(identity)
    if refusal is not None or identity is None:
        await _refuse(parts, connection, end, refusal or Verdict.UNKNOWN)
        return None
    if key is None:
        await _refuse_server_key(parts, connection, end)
        return None
    await _send(connection, end.challenge(identity.public_key, key.private_key))
    await _receive(connection, end)  # the proof; raises when it does not hold
    connection.protocol.max_message_size = MAX_FRAME_BYTES
    facts = End(remote, hello.machine_id, hello.hardware, hello.boot_id, time.time())
    claim = Claim(hello.node_id, parts.gateway_id, new_id("conn"), facts, key.public_key)
    async with parts.registry.turn(hello.node_id):
        answer = await _claim(parts, claim)
        if answer.verdict not in (Verdict.CLAIMED, Verdict.HELD):
            await _refuse(parts, connection, end, answer.verdict)
            return None
        link = _register(parts, connection, end, claim, answer)
    return await _welcome(parts, link, answer)


async def _refuse(parts: Parts, connection: ServerConnection, end: ServerEnd, verdict: Verdict) -> None:
    code, word, text = REFUSALS[verdict]
    last_words = end.refused(Refused(code=word, text=text))
    who = end.node_id or "nobody"
    await parts.closer.close_and_wait(connection, code, text, who=who, last_words=last_words)


async def _refuse_server_key(parts: Parts, connection: ServerConnection, end: ServerEnd) -> None:
    """It would believe nothing that we could sign; like every refusal before the proof this one is only hearsay."""
    text = "The key that this node pins is not, or no longer, one of this server. Join again."
    last_words = end.refused(Refused(code="server-key", text=text))
    who = end.node_id or "nobody"
    await parts.closer.close_and_wait(connection, CloseCode.BAD_PROOF, text, who=who, last_words=last_words)


async def _claim(parts: Parts, claim: Claim) -> Answer:
    """Decide, with the node's turn held, what becomes of this connection and of the one that may be there already."""
    first = parts.registry.speaker(claim.node_id)
    if first is not None and first.held_at is None:
        if await first.answers(parts.limits.probe_s):
            ends = [first.end_facts, claim.end]
            await parts.threads.until_done(lambda: connections.hold(parts.db, claim.node_id, ends, time.time()))
            first.hold(asyncio.get_running_loop().time())
        else:
            replace(parts, first)
    while True:
        answer = await parts.claims.get(claim)
        if answer.verdict is not Verdict.ELSEWHERE:
            return answer
        await asyncio.sleep(parts.limits.claim_again_s)  # the opening's time limit ends this


def _register(parts: Parts, connection: ServerConnection, end: ServerEnd, claim: Claim, answer: Answer) -> NodeLink:
    now = asyncio.get_running_loop().time()
    link = NodeLink(connection, end, claim.node_id, claim.connection_id, claim.end, claim.server_key, now)
    if answer.verdict is Verdict.CLAIMED:
        parts.registry.add_speaker(link)
        return link
    if len(parts.registry.held(claim.node_id)) >= parts.limits.held_ends:
        raise WireError(CloseCode.TOO_MANY, "too many connections of one node in an identity conflict")
    link.hold(now)
    parts.registry.add_held(link)
    return link


async def _welcome(parts: Parts, link: NodeLink, answer: Answer) -> NodeLink:
    conflict = link.held_at is not None
    welcome: Welcome = welcome_for(
        link.node_id, answer, parts.name, parts.limits, conflict=conflict, minor=link.end.minor
    )
    link.sent_welcome = welcome
    try:
        named = msgspec.structs.replace(welcome, next_server_key=parts.keyring.tell(link))
        await _send(link.connection, link.end.welcome(named))
    except BaseException:
        forget(parts, link)
        raise
    parts.dispatcher.look([link.node_id])
    return link


def replace(parts: Parts, link: NodeLink) -> None:
    """The same node came back while this connection was dead."""
    forget(parts, link)
    parts.closer.close_link(link, CloseCode.REPLACED, "this connection did not answer, and the node came back")


def forget(parts: Parts, link: NodeLink) -> None:
    """The connection has ended: what it said is still written, then its row is released."""
    if parts.registry.remove(link):
        seen_at = time.time() - (asyncio.get_running_loop().time() - link.heard_at)
        parts.writer.note_gone(Gone(link.node_id, link.connection_id, seen_at))
