"""docs/wire.md tells what the code does: diagrams, messages, fields, words, close codes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from wire_samples import ALL_KINDS, NODE_KINDS, SERVER_KINDS

from wire import identity, messages
from wire.close import CloseCode
from wire.messages import MINOR
from wire.states import JOIN, NODE, SERVER, Kind, diagram, tag_of

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()


def test_the_diagrams_are_those_of_the_tables() -> None:
    """After a change of a table: put what this test prints in place of the old diagram."""
    drawn = re.findall(r"```mermaid\n(.*?)```", PAGE, re.S)
    assert drawn == [diagram(SERVER, NODE_KINDS), diagram(NODE, SERVER_KINDS), diagram(JOIN, SERVER_KINDS)]


def section(tag: str) -> str:
    found = re.search(rf"^### {tag}\n(.*?)(?=^##|\Z)", PAGE, re.S | re.M)
    assert found, f"no section about {tag}"
    return found[1]


@pytest.mark.parametrize("kind", ALL_KINDS, ids=tag_of)
def test_every_message_and_field_is_there(kind: Kind) -> None:
    text = section(tag_of(kind))
    for name in kind.__struct_fields__:
        assert f"`{name}`" in text, f"{tag_of(kind)}.{name} is not explained"


VALUES = [
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, messages.Struct) and value is not messages.Struct
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_every_field_of_every_value_is_there(value: type[msgspec.Struct]) -> None:
    assert [name for name in value.__struct_fields__ if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    "words", [messages.Phase, messages.OperationKind, messages.Result, messages.HealthState, messages.BootCause]
)
def test_every_word_is_there(words: type[messages.Phase]) -> None:
    assert [word for word in words if f"`{word.value}`" not in PAGE] == []


def test_every_close_code_is_there() -> None:
    listed = re.findall(r"^\| (\d{4}) \| `([A-Z_]+)` \|", PAGE, re.M)
    assert listed == [(str(code.value), code.name) for code in sorted(CloseCode)]


def test_the_signed_bytes_are_those_of_the_page() -> None:
    values = {
        "SUBJECT": "s",
        "NODE_ID": "i",
        "NODE_KEY": "k",
        "SERVER_KEY": "q",
        "NEXT_KEY": "x",
        "NODE_NONCE": "n",
        "SERVER_NONCE": "m",
    }
    values |= {"OS": "o", "ARCH": "a", "VERSION": "v", "DIGEST": "d", "SIZE": "5"}
    made = {
        "server": identity.server_statement("n", "m", "s"),
        "node": identity.node_statement("n", "m", "i", "q"),
        "join": identity.join_statement("n", "m", "k", "q"),
        "next key": identity.next_key_statement("n", "m", "i", "q", "x"),
        "image": identity.image_statement("o", "a", "v", "d", 5),
    }
    for name, signed in made.items():
        found = re.search(rf"^{name} statement +(.*)$", PAGE, re.M)
        assert found
        words = found[1].removesuffix(" ⏎").split(" ⏎ ")
        assert "".join(values.get(word, word) + "\n" for word in words).encode() == signed


def test_the_minor_is_that_of_the_code() -> None:
    assert f"This is minor {MINOR}." in PAGE
