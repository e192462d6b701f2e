"""Every legal move of each end of the conversation, as literal tables; everything else is out of order.

A table says: in this state, a message of this kind (received or sent) leads to that state. The diagrams in
docs/wire.md are generated from these tables by `diagram`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from wire.close import CloseCode, WireError
from wire.messages import (
    Ack,
    Ask,
    Challenge,
    Desired,
    Heartbeat,
    Hello,
    Join,
    Joined,
    JoinHello,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    LeaseWait,
    Message,
    NodeEvent,
    OperationReport,
    Part,
    Proof,
    Refused,
    Status,
    Welcome,
)


class ServerState(StrEnum):
    """Where the gateway's end of one connection stands."""

    NEW = "new"
    GREETED = "greeted"
    """A hello came; the gateway looks the node up."""
    CHALLENGED = "challenged"
    PROVED = "proved"
    """The node proved itself; the gateway decides whether it is welcome."""
    JOIN_GREETED = "join-greeted"
    JOIN_CHALLENGED = "join-challenged"
    JOIN_PROVED = "join-proved"
    """The joining node holds the key it names; the gateway decides about the token."""
    OPEN = "open"
    CLOSED = "closed"
    """Nothing more is said: close the connection."""


class NodeState(StrEnum):
    """Where a joined node's end stands."""

    NEW = "new"
    GREETED = "greeted"
    PROVED = "proved"
    """The server proved itself and our proof is on its way."""
    OPEN = "open"
    CLOSED = "closed"


class JoinState(StrEnum):
    """Where the end of a node that joins stands."""

    NEW = "new"
    GREETED = "greeted"
    TRUSTING = "trusting"
    """The server holds the key of the join command: now the token may be spent."""
    JOINING = "joining"
    CLOSED = "closed"


State = TypeVar("State", bound=StrEnum)
Kind = type[Message]
Table = Mapping[State, Mapping[Kind, State]]

NODE_SAYS: tuple[Kind, ...] = (
    Status,
    NodeEvent,
    OperationReport,
    LeaseRequest,
    LeaseReturn,
    Heartbeat,
    Part,
)
"""What a node may say on an open connection."""

SERVER_SAYS: tuple[Kind, ...] = (Welcome, Desired, LeaseGrant, LeaseWait, Ack, Ask, Part)
"""What the gateway may say on an open connection; another `welcome` tells that admission, name, epoch or
conflict changed."""

SERVER: Table[ServerState] = {
    ServerState.NEW: {
        Hello: ServerState.GREETED,
        JoinHello: ServerState.JOIN_GREETED,
        Refused: ServerState.CLOSED,
    },
    ServerState.GREETED: {Challenge: ServerState.CHALLENGED, Refused: ServerState.CLOSED},
    ServerState.CHALLENGED: {Proof: ServerState.PROVED, Refused: ServerState.CLOSED},
    ServerState.PROVED: {Welcome: ServerState.OPEN, Refused: ServerState.CLOSED},
    ServerState.JOIN_GREETED: {Challenge: ServerState.JOIN_CHALLENGED, Refused: ServerState.CLOSED},
    ServerState.JOIN_CHALLENGED: {Join: ServerState.JOIN_PROVED, Refused: ServerState.CLOSED},
    ServerState.JOIN_PROVED: {Joined: ServerState.CLOSED, Refused: ServerState.CLOSED},
    ServerState.OPEN: {
        **dict.fromkeys(NODE_SAYS, ServerState.OPEN),
        **dict.fromkeys(SERVER_SAYS, ServerState.OPEN),
        Refused: ServerState.CLOSED,
    },
    ServerState.CLOSED: {},
}

NODE: Table[NodeState] = {
    NodeState.NEW: {Hello: NodeState.GREETED, Refused: NodeState.CLOSED},
    NodeState.GREETED: {Challenge: NodeState.PROVED, Refused: NodeState.CLOSED},
    # The proof is sent in the same step in which the challenge is accepted, so it is no move of its own.
    NodeState.PROVED: {Welcome: NodeState.OPEN, Refused: NodeState.CLOSED},
    NodeState.OPEN: {
        **dict.fromkeys(NODE_SAYS, NodeState.OPEN),
        **dict.fromkeys(SERVER_SAYS, NodeState.OPEN),
        Refused: NodeState.CLOSED,
    },
    NodeState.CLOSED: {},
}

JOIN: Table[JoinState] = {
    JoinState.NEW: {JoinHello: JoinState.GREETED, Refused: JoinState.CLOSED},
    JoinState.GREETED: {Challenge: JoinState.TRUSTING, Refused: JoinState.CLOSED},
    JoinState.TRUSTING: {Join: JoinState.JOINING, Refused: JoinState.CLOSED},
    JoinState.JOINING: {Joined: JoinState.CLOSED, Refused: JoinState.CLOSED},
    JoinState.CLOSED: {},
}


def tag_of(kind: Kind) -> str:
    """The `type` that messages of this kind carry."""
    return str(kind.__struct_config__.tag)


def step(table: Table[State], state: State, kind: Kind) -> State:
    """The state after a message of `kind`; WireError OUT_OF_ORDER when the table has no such move."""
    following = table[state].get(kind)
    if following is None:
        raise WireError(CloseCode.OUT_OF_ORDER, f"{tag_of(kind)} while {state.value}")
    return following


def diagram(table: Table[State], received: Iterable[Kind]) -> str:
    """The table as a Mermaid state diagram; `received` are the kinds that the other end sends."""
    theirs = set(received)
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{state.value}" as {_node(state)}' for state in table]
    lines.append(f"    [*] --> {_node(next(iter(table)))}")
    for state, moves in table.items():
        for following in dict.fromkeys(moves.values()):
            kinds = [kind for kind, to in moves.items() if to is following]
            lines.append(f"    {_node(state)} --> {_node(following)}: {_label(kinds, theirs)}")
        if not moves:
            lines.append(f"    {_node(state)} --> [*]")
    return "\n".join(lines) + "\n"


def _label(kinds: list[Kind], theirs: set[Kind]) -> str:
    said: dict[str, list[str]] = {}
    for kind in kinds:
        verb = "gets or sends" if kind is Part else "gets" if kind in theirs else "sends"
        said.setdefault(verb, []).append(tag_of(kind))
    return " / ".join(f"{verb} {', '.join(tags)}" for verb, tags in said.items())


def _node(state: StrEnum) -> str:
    return state.value.replace("-", "_")
