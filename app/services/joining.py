"""Join tokens, and the join of a machine as a node.

A join is one transaction: claim one use of the token, insert the node, link it to the node it replaces, record
the attempt. A refused join changes nothing but the list of attempts.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.config import Settings
from app.core.actors import Actor, ActorKind
from app.core.errors import Invalid, NotFound, NotPossible, TwinrootError
from app.core.events import EventKind
from app.core.labels import check_labels
from app.core.networks import allows, parse_networks
from app.core.texts import for_index
from app.core.tokens import secret_hash
from app.ids import new_id
from app.services import replacement
from app.store import audit, channels, events, join_tokens, joins, server_keys
from app.store.database import Change, Database, Priority
from app.store.join_tokens import JoinToken, TokenState
from app.store.joins import KnownNode
from wire.identity import fingerprint
from wire.messages import Join, Joined

TOKEN_PREFIX = "trj_"  # noqa: S105 -- marks our join tokens, so that scanners find leaked ones
MAX_USES = 100_000
MAX_LIFE_S = 366 * 86400.0
"""A token that outlives a year is forgotten somewhere."""
NOTE_CHARS = 200
UNNAMED = "unnamed"


class RefusalCode(StrEnum):
    UNKNOWN_TOKEN = "unknown-token"  # noqa: S105 -- a code, no secret
    REVOKED = "token-revoked"
    EXPIRED = "token-expired"
    SPENT = "token-spent"
    FOREIGN_NETWORK = "foreign-network"
    KEY_KNOWN = "key-known"
    RETIRED = "retired"
    BAD_LABELS = "bad-labels"
    SERVER_KEY = "server-key"


class JoinRefused(TwinrootError):
    """The join changed nothing; the attempt is recorded. Fields: code (RefusalCode), text (for the node's user)."""

    http_status = 403

    def __init__(self, code: RefusalCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Refusal:
    code: RefusalCode
    text: str


_UNKNOWN_SERVER_KEY = _Refusal(
    RefusalCode.SERVER_KEY,
    "The fingerprint in the join command is of no key that this server has now. The token was not spent: "
    "ask an operator for a new command.",
)


def create_token(
    db: Database,
    actor: Actor,
    *,
    note: str = "",
    max_uses: int = 1,
    expires_at: float,
    networks: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    admit: bool = True,
    channel_id: str | None = None,
    reason: str = "",
    now: float,
) -> tuple[str, str]:
    """A join token: (its id, the token itself, which is shown this once and kept as a hash).

    Invalid names the input that is wrong; NotFound when there is no such channel.
    """
    if not 1 <= max_uses <= MAX_USES:
        raise Invalid("max_uses", f"A token can be used 1 to {MAX_USES} times, not {max_uses}.")
    if not now < expires_at <= now + MAX_LIFE_S:
        raise Invalid("expires_at", "A token must expire in the future, within a year.")
    if len(note) > NOTE_CHARS:
        raise Invalid("note", f"The note has at most {NOTE_CHARS} characters.")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    with db.write() as change:
        row = JoinToken(
            id=new_id("join"),
            note=note.strip(),
            max_uses=max_uses,
            uses=0,
            networks=parse_networks(networks),
            labels=check_labels(labels or {}),
            admit=admit,
            channel_id=channel_id,
            channel=_channel_name(change.conn, channel_id),
            created_by=actor.name,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
        join_tokens.add(change.conn, row, secret_hash(token))
        audit.append(change.conn, actor, "join-token.create", f"join-token:{row.id}", reason, None, _shown(row), now)
        change.touch("joining")
    return row.id, token


def _channel_name(conn: Connection, channel_id: str | None) -> str:
    if channel_id is None:
        return ""
    channel = channels.get(conn, channel_id)
    if channel is None:
        raise NotFound("channel", channel_id)
    return channel.name


def _shown(token: JoinToken) -> dict[str, object]:
    return {
        "note": token.note,
        "max_uses": token.max_uses,
        "networks": list(token.networks),
        "labels": token.labels,
        "admit": token.admit,
        "channel": token.channel,
        "expires_at": token.expires_at,
    }


def revoke_token(db: Database, actor: Actor, token_id: str, reason: str, now: float) -> None:
    """No further joins with this token; nodes that joined with it stay. NotPossible when it was revoked already."""
    with db.write() as change:
        token = join_tokens.get(change.conn, token_id)
        if token is None:
            raise NotFound("join token", token_id)
        if not join_tokens.revoke(change.conn, token_id, now):
            raise NotPossible("revoked", "This token was revoked already; nothing was changed.")
        before, after = {"revoked_at": None}, {"revoked_at": now}
        audit.append(change.conn, actor, "join-token.revoke", f"join-token:{token_id}", reason, before, after, now)
        change.touch("joining")


def join_command(settings: Settings, server_key_fingerprint: str, token: str) -> str:
    """What is run on the machine that shall join."""
    return f"twinroot-agent join {shlex.quote(settings.agent_url)} {token} --fingerprint {server_key_fingerprint}"


def admit_join(db: Database, join: Join, remote: str, server_key: str, now: float) -> Joined:
    """Make the machine a node, once per key and token: asked again, the answer is the same.

    The gateway has verified the join's signature; `remote` is the address as it saw it, `server_key` the public
    key that the node pinned. JoinRefused after the attempt was recorded.
    """
    try:
        answer = _join_once(db, join, remote, server_key, now)
    except IntegrityError:  # the same key joined in parallel, on PostgreSQL: now its node is there to be found
        answer = _join_once(db, join, remote, server_key, now)
    if isinstance(answer, _Refusal):
        raise JoinRefused(answer.code, answer.text)
    return answer


def refuse_server_key(db: Database, remote: str, now: float) -> JoinRefused:
    """A join that names no key of ours, recorded; nothing is known of the machine but where it is."""
    refusal = _UNKNOWN_SERVER_KEY
    with db.write(Priority.BACKGROUND) as change:
        _record(change, remote, UNNAMED, None, refusal, now)
    return JoinRefused(refusal.code, refusal.text)


def _join_once(db: Database, join: Join, remote: str, server_key: str, now: float) -> Joined | _Refusal:
    with db.write(Priority.BACKGROUND) as change:  # anybody may try: operators do not wait for that
        token = join_tokens.find(change.conn, secret_hash(join.token))
        answer = _decide_and_join(change, join, remote, token, server_key, now)
        _record(change, remote, _name(join), token, answer, now)
    return answer


def _record(
    change: Change, remote: str, name: str, token: JoinToken | None, answer: Joined | _Refusal, now: float
) -> None:
    refusal = answer if isinstance(answer, _Refusal) else None
    attempt = joins.Attempt(
        id=0,
        at=now,
        remote=remote,
        name=name,
        token_id=token.id if token else None,
        node_id=answer.node_id if isinstance(answer, Joined) else None,
        code=refusal.code.value if refusal else joins.JOINED,
        text=refusal.text if refusal else "",
    )
    joins.add_attempt(change.conn, attempt)
    change.touch("joining", *(() if refusal else ("nodes", "fleet", "events")))


def _decide_and_join(
    change: Change, join: Join, remote: str, token: JoinToken | None, server_key: str, now: float
) -> Joined | _Refusal:
    if token is None:
        return _Refusal(RefusalCode.UNKNOWN_TOKEN, "This join token is not known here. Ask an operator for a new one.")
    if not allows(token.networks, remote):
        networks = ", ".join(token.networks)
        text = f"This join token may be used from {networks}, and this machine comes from {remote}."
        return _Refusal(RefusalCode.FOREIGN_NETWORK, text)
    known = joins.node_with_key(change.conn, join.public_key)
    if known is not None:
        return _again(known, token)
    if not server_keys.keep_live(change.conn, server_key):
        return _UNKNOWN_SERVER_KEY
    try:
        labels = _labels(join, token)
    except Invalid as error:
        return _Refusal(RefusalCode.BAD_LABELS, error.text)
    if not join_tokens.claim_use(change.conn, token.id, now):
        known = joins.node_with_key(change.conn, join.public_key)  # a parallel join of the same key spent the last use
        return _again(known, token) if known else _unusable(token, now)
    return _new_node(change, join, remote, token, labels, server_key, now)


def _again(known: KnownNode, token: JoinToken) -> Joined | _Refusal:
    """The key has joined before: the answer was lost, or somebody tries another token with it."""
    if known.admission == "retired":
        return _Refusal(RefusalCode.RETIRED, f"This machine's key belongs to the retired node {known.name}.")
    if known.join_token_id != token.id:
        text = f"This machine's key joined already as {known.name}, with another token."
        return _Refusal(RefusalCode.KEY_KNOWN, text)
    return Joined(node_id=known.id, admission=known.admission, replaces=known.replaces_id)


def _unusable(token: JoinToken, now: float) -> _Refusal:
    state = token.state(now)
    if state is TokenState.REVOKED:
        return _Refusal(RefusalCode.REVOKED, "This join token was revoked. Ask an operator for a new one.")
    if state is TokenState.EXPIRED:
        return _Refusal(RefusalCode.EXPIRED, "This join token has expired. Ask an operator for a new one.")
    uses = "its only use is" if token.max_uses == 1 else f"all {token.max_uses} uses are"
    return _Refusal(RefusalCode.SPENT, f"This join token is spent: {uses} gone. Ask an operator for a new one.")


def _labels(join: Join, token: JoinToken) -> dict[str, str]:
    return check_labels({**join.labels, **token.labels})  # the operator's labels win over the node's own


def _name(join: Join) -> str:
    name = for_index("".join(character for character in join.name if character.isprintable()).strip())
    return name or join.machine_id[:12] or UNNAMED


def _new_node(
    change: Change, join: Join, remote: str, token: JoinToken, labels: dict[str, str], server_key: str, now: float
) -> Joined:
    conn = change.conn
    old = joins.node_of_machine(conn, join.machine_id, join.hardware) if join.machine_id else None
    node = joins.NewNode(
        id=new_id("node"),
        name=_name(join),
        admission="admitted" if token.admit else "pending",
        labels=labels,
        join_token_id=token.id,
        replaces_id=old.id if old else None,
        channel_id=token.channel_id,
        server_key=server_key,
    )
    joins.add_node(conn, node, join, now)
    actor = Actor(ActorKind.NODE, node.id, node.name)
    after = {
        "name": node.name,
        "admission": node.admission,
        "labels": labels,
        "remote": remote,
        "replaces": node.replaces_id,
        "server_key": fingerprint(server_key),
    }
    audit.append(conn, actor, "node.join", f"node:{node.id}", f"join token {token.note or token.id}", None, after, now)
    awaits = "" if token.admit else ", and waits for an operator's approval"
    events.append(conn, node_id=node.id, at=now, kind=EventKind.JOINED, text=f"Joined from {remote}{awaits}")
    change.touch(f"node:{node.id}")
    if old is not None and token.admit:
        replacement.retire_replaced(change, old.id, node.id, node.name, actor, now)
    return Joined(node_id=node.id, admission=node.admission, replaces=node.replaces_id)
