"""The conversation of `/agent` without I/O: frames in, messages and frames out.

One object per connection and end. Its moves stand in wire.states; a move that is not there raises WireError
OUT_OF_ORDER and changes nothing. A proof that does not hold ends the conversation: its nonces are gone, so
nobody gets a second try at them. Both ends of a proved one keep the nonces, to bind to it what the server signs
later: the key that takes the place of the pinned one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from wire import identity
from wire.close import CloseCode, WireError
from wire.codec import Assembler, decode_from_node, decode_from_server, encode, is_acceptable
from wire.fitting import fitted
from wire.messages import (
    MINOR,
    Challenge,
    FromNode,
    FromServer,
    Hello,
    Join,
    Joined,
    JoinHello,
    NextServerKey,
    OsFacts,
    Part,
    Proof,
    Refused,
    Welcome,
)
from wire.states import JOIN, NODE, SERVER, JoinState, NodeState, ServerState, step

JOIN_SUBJECT = "join"
"""Stands for the node id in what the server signs for a node that has none yet."""


class ServerEnd:
    """The gateway's end of one connection.

    Fields to read: state, hello (of a node that has joined), node_id, minor (the lower of both ends').
    """

    __slots__ = (
        "_assembler",
        "_new_nonce",
        "_node_key",
        "_node_nonce",
        "_nonce",
        "_private_key",
        "_server_key",
        "_server_name",
        "hello",
        "minor",
        "state",
    )

    def __init__(
        self,
        private_key: str,
        server_name: str,
        *,
        minor: int = MINOR,
        new_nonce: Callable[[], str] = identity.new_nonce,
    ) -> None:
        self._private_key = private_key
        self._server_name = server_name
        self._new_nonce = new_nonce
        self._assembler: Assembler[FromNode] | None = None
        self._server_key = self._node_nonce = self._nonce = ""
        self._node_key: str | None = None
        self.state = ServerState.NEW
        self.hello: Hello | None = None
        self.minor = minor

    @property
    def node_id(self) -> str | None:
        """The id that the node claims; proved once `receive` has returned its Proof."""
        return self.hello.node_id if self.hello else None

    def receive(self, frame: str | bytes) -> FromNode | None:
        """The message in `frame`, its proof verified; None while parts of it are missing.

        WireError MALFORMED, TOO_BIG, OUT_OF_ORDER or BAD_PROOF: close the connection with its code.
        """
        message = decode_from_node(frame)
        state = step(SERVER, self.state, type(message))
        if self._assembler is not None or isinstance(message, Part):
            whole = self._assemble(message)
            if whole is None:
                return None
            message, state = whole, step(SERVER, self.state, type(whole))
        if state is not self.state:
            self._opening(message)
            self.state = state
        return message

    def _assemble(self, message: FromNode) -> FromNode | None:
        # Made for the first part and dropped with the last: most connections never need one.
        assembler = self._assembler or Assembler(decode_from_node)
        whole = assembler.feed(message)
        self._assembler = None if whole is not None else assembler
        return whole

    def _opening(self, message: FromNode) -> None:
        match message:
            case Hello():
                self.hello = message
                self._greeted(message)
            case JoinHello():
                self._greeted(message)
            case Proof():
                self._verify(self._node_key or "", message.signature, identity.node_statement, self.node_id or "")
            case Join():
                self._verify(message.public_key, message.signature, identity.join_statement, message.public_key)

    def _greeted(self, hello: Hello | JoinHello) -> None:
        self._node_nonce = hello.nonce
        self.minor = min(self.minor, hello.minor)

    def _verify(self, key: str, signature: str, statement: Callable[[str, str, str, str], bytes], subject: str) -> None:
        signed = statement(self._node_nonce, self._nonce, subject, self._server_key)
        self._private_key = self._server_key = ""
        self._node_key = None
        if not identity.verify(key, signature, signed):
            self.state = ServerState.CLOSED
            self._node_nonce = self._nonce = ""
            raise WireError(CloseCode.BAD_PROOF, "the node's signature does not hold")

    def challenge(self, node_public_key: str | None, private_key: str | None = None) -> list[str]:
        """Prove the server and ask for the node's proof; the node's key as stored, None for a join.

        `private_key` is the server's own, where the other end pins another than the one given at the start.
        ValueError when the node's key does not fit the greeting.
        """
        step(SERVER, self.state, Challenge)
        wrong = ServerState.GREETED if node_public_key is None else ServerState.JOIN_GREETED
        if self.state is wrong:
            raise ValueError("a joined node is challenged for its stored key, a joining one without a key")
        private_key = private_key or self._private_key
        nonce = self._new_nonce()
        subject = self.node_id or JOIN_SUBJECT
        statement = identity.server_statement(self._node_nonce, nonce, subject)
        server_key = identity.public_key(private_key)
        frames = self._say(
            Challenge(
                nonce=nonce,
                server_key=server_key,
                signature=identity.sign(private_key, statement),
                minor=self.minor,
                server_name=self._server_name,
            )
        )
        self._nonce, self._server_key, self._node_key = nonce, server_key, node_public_key
        return frames

    def next_server_key(self, private_key: str, key: str) -> NextServerKey:
        """Names `key` to the node that has proved itself, signed by the key under which it did."""
        if self.state not in (ServerState.PROVED, ServerState.OPEN):
            raise WireError(CloseCode.OUT_OF_ORDER, f"no key is named while {self.state.value}")
        statement = identity.next_key_statement(
            self._node_nonce, self._nonce, self.node_id or "", identity.public_key(private_key), key
        )
        return NextServerKey(key=key, signature=identity.sign(private_key, statement))

    def welcome(self, welcome: Welcome) -> list[str]:
        """The node is in: the conversation is open. The negotiated minor is filled in."""
        return self._say(msgspec.structs.replace(welcome, minor=self.minor))

    def joined(self, joined: Joined) -> list[str]:
        """The join is committed; nothing follows, the node comes back with a hello."""
        return self._say(joined)

    def refused(self, refused: Refused) -> list[str]:
        """Say why, in any state; close the connection after it."""
        return self._say(refused)

    def send(self, message: FromServer) -> list[str]:
        """Frames of `message`, only while open."""
        if self.state is not ServerState.OPEN:
            raise WireError(CloseCode.OUT_OF_ORDER, f"nothing is sent while {self.state.value}")
        return self._say(message)

    def _say(self, message: FromServer) -> list[str]:
        state = step(SERVER, self.state, type(message))
        frames = encode(message)
        self.state = state
        return frames


class NodeEnd:
    """The end of a node that has joined, with the server's key pinned.

    Fields to read: state, minor (the lower of both ends'; settled by the challenge).
    """

    __slots__ = (
        "_assembler",
        "_new_nonce",
        "_node_id",
        "_nonce",
        "_private_key",
        "_proved_nonces",
        "_server_key",
        "minor",
        "state",
    )

    def __init__(
        self,
        node_id: str,
        private_key: str,
        server_key: str,
        *,
        minor: int = MINOR,
        new_nonce: Callable[[], str] = identity.new_nonce,
    ) -> None:
        self._node_id = node_id
        self._private_key = private_key
        self._server_key = server_key
        self._new_nonce = new_nonce
        self._nonce = ""
        self._proved_nonces = ("", "")
        self._assembler = Assembler[FromServer](decode_from_server)
        self.state = NodeState.NEW
        self.minor = minor

    def hello(self, *, agent_version: str, machine_id: str, hardware: str, boot_id: str) -> list[str]:
        """The first frame."""
        hello = Hello(
            node_id=self._node_id,
            nonce=self._new_nonce(),
            minor=self.minor,
            agent_version=agent_version,
            machine_id=machine_id,
            hardware=hardware,
            boot_id=boot_id,
            server_fingerprint=identity.fingerprint(self._server_key),
        )
        state, frames = step(NODE, self.state, type(hello)), encode(hello)
        self.state, self._nonce = state, hello.nonce
        return frames

    def receive(self, frame: str | bytes) -> tuple[FromServer | None, list[str]]:
        """The message in `frame` (None while parts are missing) and the frames to answer at once.

        WireError as in ServerEnd; BAD_PROOF when this is not the server that was pinned.
        """
        first = decode_from_server(frame)
        step(NODE, self.state, type(first))
        message = self._assembler.feed(first)
        if message is None:
            return None, []
        state = step(NODE, self.state, type(message))
        answer: list[str] = []
        if isinstance(message, Challenge):
            answer = self._answer(message)
        elif isinstance(message, Welcome) and message.node_id != self._node_id:
            raise WireError(CloseCode.OUT_OF_ORDER, "a welcome for another node")
        self.state = state
        return message, answer

    def _answer(self, challenge: Challenge) -> list[str]:
        nonce, self._nonce = self._nonce, ""
        statement = identity.server_statement(nonce, challenge.nonce, self._node_id)
        if challenge.server_key != self._server_key:
            self.state = NodeState.CLOSED
            raise WireError(CloseCode.BAD_PROOF, "the server has another key than the one pinned at join")
        if not identity.verify(self._server_key, challenge.signature, statement):
            self.state = NodeState.CLOSED
            raise WireError(CloseCode.BAD_PROOF, "the server's signature does not hold")
        self.minor = min(self.minor, challenge.minor)
        self._proved_nonces = nonce, challenge.nonce
        signed = identity.node_statement(nonce, challenge.nonce, self._node_id, self._server_key)
        return encode(Proof(signature=identity.sign(self._private_key, signed)))

    def is_named(self, following: NextServerKey) -> bool:
        """Whether the pinned key itself, in this conversation, names that key as the one to take its place."""
        statement = identity.next_key_statement(*self._proved_nonces, self._node_id, self._server_key, following.key)
        return identity.verify(self._server_key, following.signature, statement)

    def send(self, message: FromNode) -> list[str]:
        """Frames of `message`, only while open (after the welcome); texts beyond their limits are cut."""
        if self.state is not NodeState.OPEN:
            raise WireError(CloseCode.OUT_OF_ORDER, f"nothing is sent while {self.state.value}")
        step(NODE, self.state, type(message))
        return encode(message if is_acceptable(message) else fitted(message))


class JoinEnd:
    """The end of a node that joins: it spends its token only at the server that the join command names.

    Fields to read: state, server_key (proved; "" before), minor.
    """

    __slots__ = (
        "_fingerprint",
        "_new_nonce",
        "_nonce",
        "_private_key",
        "_server_nonce",
        "minor",
        "server_key",
        "state",
    )

    def __init__(
        self,
        private_key: str,
        fingerprint: str,
        *,
        minor: int = MINOR,
        new_nonce: Callable[[], str] = identity.new_nonce,
    ) -> None:
        self._private_key = private_key
        self._fingerprint = fingerprint
        self._new_nonce = new_nonce
        self._nonce = self._server_nonce = ""
        self.server_key = ""
        self.state = JoinState.NEW
        self.minor = minor

    def hello(self, *, agent_version: str) -> list[str]:
        """The first frame; spends nothing."""
        hello = JoinHello(
            nonce=self._new_nonce(),
            minor=self.minor,
            agent_version=agent_version,
            server_fingerprint=self._fingerprint,
        )
        state, frames = step(JOIN, self.state, type(hello)), encode(hello)
        self.state, self._nonce = state, hello.nonce
        return frames

    def receive(self, frame: str | bytes) -> tuple[FromServer | None, list[str]]:
        """The message in `frame`; nothing is ever answered at once, the shape is that of NodeEnd.

        WireError BAD_PROOF when this is not the server that the join command names.
        """
        message = decode_from_server(frame)
        state = step(JOIN, self.state, type(message))
        if isinstance(message, Challenge):
            self._trust(message)
        self.state = state
        return message, []

    def _trust(self, challenge: Challenge) -> None:
        statement = identity.server_statement(self._nonce, challenge.nonce, JOIN_SUBJECT)
        if identity.fingerprint(challenge.server_key) != self._fingerprint:
            self.state = JoinState.CLOSED
            raise WireError(CloseCode.BAD_PROOF, "the server's key is not the one that the join command names")
        if not identity.verify(challenge.server_key, challenge.signature, statement):
            self.state = JoinState.CLOSED
            raise WireError(CloseCode.BAD_PROOF, "the server's signature does not hold")
        self.server_key = challenge.server_key
        self._server_nonce = challenge.nonce
        self.minor = min(self.minor, challenge.minor)

    def join(
        self, token: str, name: str, machine_id: str, hardware: str, os: OsFacts, labels: dict[str, str]
    ) -> list[str]:
        """Spend the token; only after the server was proved."""
        public = identity.public_key(self._private_key)
        signed = identity.join_statement(self._nonce, self._server_nonce, public, self.server_key)
        join = Join(
            token=token,
            public_key=public,
            signature=identity.sign(self._private_key, signed),
            name=name,
            machine_id=machine_id,
            hardware=hardware,
            os=os,
            labels=labels,
        )
        state, frames = step(JOIN, self.state, type(join)), encode(join)
        self.state = state
        return frames
