"""The chain of a node's page: each condition with what would help, and where to look at what it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode

from sqlalchemy import Connection

from app.core.holds import Hold, HoldCode
from app.core.waiting import Link, Step
from app.store import rollouts
from app.web.rollout_holds import WORDS

_OF_A_SERVICE = frozenset({HoldCode.SERVICE_FLOOR, HoldCode.SINGLE_REPLICA})
_OF_A_GROUP = frozenset(
    {
        HoldCode.WINDOW,
        HoldCode.MINIMUM_AGE,
        HoldCode.GROUP_BUDGET,
        HoldCode.DOMAIN_BUDGET,
        HoldCode.DOMAIN_ORDER,
        HoldCode.HEALTH_GATE,
    }
)
_OF_A_ROLLOUT = frozenset(
    {
        HoldCode.OTHER_ROLLOUT,
        HoldCode.KEEPING_WAY_BACK,
        HoldCode.NOT_RUNNING,
        HoldCode.CANARIES,
        HoldCode.EXPOSURE,
    }
)


@dataclass(frozen=True, slots=True)
class ChainRow:
    link: Link
    helps: str
    """What a person could do; empty: it passes by itself, or nobody knows."""
    href: str
    """Of what stops it; empty: there is no page of it."""
    what: str
    """What that page is of: service, group, rollout, freezes."""

    @property
    def shape(self) -> str:
        return {Step.PASSED: "ok", Step.STOPS: "warn", Step.UNDER_WAY: "busy", Step.LATER: "off"}[self.link.step]

    @property
    def spoken(self) -> str:
        """The shape in words."""
        words = {Step.PASSED: "done", Step.STOPS: "stops here", Step.UNDER_WAY: "under way", Step.LATER: "later"}
        return words[self.link.step]


def chain_rows(conn: Connection, links: Iterable[Link]) -> list[ChainRow]:
    return [_row(conn, link) for link in links]


def _row(conn: Connection, link: Link) -> ChainRow:
    if link.hold is None:
        return ChainRow(link, "", "", "")
    return ChainRow(link, WORDS[link.hold.code].helps, *_page_of(conn, link.hold))


def _page_of(conn: Connection, hold: Hold) -> tuple[str, str]:
    """(address, what is there) of what a hold is about."""
    if hold.code is HoldCode.FREEZE:
        return "/freezes", "freezes"
    if hold.code in _OF_A_SERVICE and hold.subject:
        scope, _, name = hold.subject.rpartition("/")
        return "/service?" + urlencode({"scope": scope, "name": name}), "service"
    if hold.code in _OF_A_GROUP and hold.subject.startswith("group_"):
        return f"/groups/{hold.subject}", "group"
    if hold.code in _OF_A_ROLLOUT:
        rollout = rollouts.get(conn, hold.subject)
        if rollout is not None:
            return f"/rollouts/{rollout.number}", "rollout"
    return "", ""
