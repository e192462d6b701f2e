"""Keys, fingerprints, and the exact bytes that are signed.

Ed25519 (RFC 8032). Each signed text begins with its own purpose, so that a signature made for one can never
pass for another, and covers both nonces and the node's id or key, so that a recorded one fits no other
conversation.
"""

from __future__ import annotations

import base64
import hashlib
import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

NONCE_BYTES = 32


def encode(raw: bytes) -> str:
    """Unpadded base64url of `raw`."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Bytes of unpadded base64url `text`; ValueError when it is not."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def new_nonce() -> str:
    """32 random bytes as text."""
    return encode(secrets.token_bytes(NONCE_BYTES))


def new_private_key() -> str:
    """A fresh Ed25519 private key (32-byte seed) as text."""
    key = Ed25519PrivateKey.generate()
    return encode(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


def public_key(private: str) -> str:
    """The public key (32 bytes, as text) of a private key."""
    key = Ed25519PrivateKey.from_private_bytes(decode(private))
    return encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def fingerprint(public: str) -> str:
    """`sha256:` and 64 hex digits of the raw public key: what the join command carries."""
    return "sha256:" + hashlib.sha256(decode(public)).hexdigest()


def key_id(public: str) -> str:
    """First 16 hex digits of the fingerprint: names an image key in lists and signatures."""
    return fingerprint(public)[7:23]


def sign(private: str, statement: bytes) -> str:
    """Signature (64 bytes, as text) of `statement`."""
    return encode(Ed25519PrivateKey.from_private_bytes(decode(private)).sign(statement))


def verify(public: str, signature: str, statement: bytes) -> bool:
    """Whether `signature` of `statement` was made by the owner of `public`; malformed input is False."""
    try:
        Ed25519PublicKey.from_public_bytes(decode(public)).verify(decode(signature), statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def _lines(*parts: str) -> bytes:
    if any("\n" in part for part in parts):
        raise ValueError("a signed field must not contain a line break")
    return ("\n".join(parts) + "\n").encode()


def server_statement(node_nonce: str, server_nonce: str, subject: str) -> bytes:
    """What the server signs in `challenge`; subject is the node id, or `join` while there is none."""
    return _lines("twinroot.v1 server", subject, node_nonce, server_nonce)


def node_statement(node_nonce: str, server_nonce: str, node_id: str, server_key: str) -> bytes:
    """What a node signs in `proof`; naming the server's key keeps it useless at any other server."""
    return _lines("twinroot.v1 node", node_id, server_key, server_nonce, node_nonce)


def join_statement(node_nonce: str, server_nonce: str, public: str, server_key: str) -> bytes:
    """What a joining node signs in `join` with its new key."""
    return _lines("twinroot.v1 join", public, server_key, server_nonce, node_nonce)


def next_key_statement(node_nonce: str, server_nonce: str, node_id: str, old_key: str, new_key: str) -> bytes:
    """What the server signs with the key that a node pins, to name the key that takes its place."""
    return _lines("twinroot.v1 next-server-key", node_id, old_key, new_key, server_nonce, node_nonce)


def image_statement(os: str, arch: str, version: str, digest: str, size: int) -> bytes:
    """What an image's detached signature covers: its identity, so that none passes under another name."""
    return _lines("twinroot-image.v1", os, arch, version, digest, str(size))
