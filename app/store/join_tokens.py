"""Join tokens: what lets a machine in, how often, from where, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Row, insert, select, update

from app.store.schema import channels, join_tokens


class TokenState(StrEnum):
    USABLE = "usable"
    REVOKED = "revoked"
    EXPIRED = "expired"
    SPENT = "spent"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Times are Unix seconds; networks are CIDR texts, none: from anywhere."""

    id: str
    note: str
    max_uses: int
    uses: int
    networks: tuple[str, ...]
    labels: dict[str, str]
    admit: bool
    channel_id: str | None
    channel: str
    created_by: str
    created_at: float
    expires_at: float
    revoked_at: float | None

    @property
    def uses_left(self) -> int:
        return self.max_uses - self.uses

    def state(self, now: float) -> TokenState:
        if self.revoked_at is not None:
            return TokenState.REVOKED
        if self.uses_left <= 0:
            return TokenState.SPENT
        return TokenState.USABLE if self.expires_at > now else TokenState.EXPIRED


_COLUMNS = (*join_tokens.c, channels.c.name.label("channel"))
_FROM = join_tokens.outerjoin(channels, channels.c.id == join_tokens.c.channel_id)


def add(conn: Connection, token: JoinToken, secret_hash: str) -> None:
    conn.execute(
        insert(join_tokens).values(
            id=token.id,
            secret_hash=secret_hash,
            note=token.note,
            max_uses=token.max_uses,
            uses=0,
            networks=list(token.networks),
            labels=token.labels,
            admit=token.admit,
            channel_id=token.channel_id,
            created_by=token.created_by,
            created_at=token.created_at,
            expires_at=token.expires_at,
        )
    )


def get(conn: Connection, token_id: str) -> JoinToken | None:
    row = conn.execute(select(*_COLUMNS).select_from(_FROM).where(join_tokens.c.id == token_id)).one_or_none()
    return None if row is None else _token(row)


def find(conn: Connection, secret_hash: str) -> JoinToken | None:
    """The token with this hash, usable or not."""
    query = select(*_COLUMNS).select_from(_FROM).where(join_tokens.c.secret_hash == secret_hash)
    row = conn.execute(query).one_or_none()
    return None if row is None else _token(row)


def newest(conn: Connection, limit: int = 200) -> list[JoinToken]:
    """The youngest first."""
    query = select(*_COLUMNS).select_from(_FROM).order_by(join_tokens.c.created_at.desc(), join_tokens.c.id.desc())
    return [_token(row) for row in conn.execute(query.limit(limit))]


def claim_use(conn: Connection, token_id: str, now: float) -> bool:
    """Spend one use if one is left; parallel joins can never spend more than there are."""
    claimed = conn.execute(
        update(join_tokens)
        .where(
            join_tokens.c.id == token_id,
            join_tokens.c.uses < join_tokens.c.max_uses,
            join_tokens.c.revoked_at.is_(None),
            join_tokens.c.expires_at > now,
        )
        .values(uses=join_tokens.c.uses + 1)
    )
    return claimed.rowcount == 1


def revoke(conn: Connection, token_id: str, now: float) -> bool:
    """False when it was revoked already."""
    revoked = conn.execute(
        update(join_tokens)
        .where(join_tokens.c.id == token_id, join_tokens.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return revoked.rowcount == 1


def _token(row: Row[tuple[object, ...]]) -> JoinToken:
    return JoinToken(
        id=row.id,
        note=row.note,
        max_uses=row.max_uses,
        uses=row.uses,
        networks=tuple(row.networks),
        labels=dict(row.labels),
        admit=row.admit,
        channel_id=row.channel_id,
        channel=row.channel or "",
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
