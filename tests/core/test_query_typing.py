"""Half-written filters: the word at the cursor, what it asks for, and what it becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.query import Field, parse
from app.core.query_typing import FIELD_WORDS, Suggestion, at_cursor, fields_for, taken, value_for


def typed(text: str) -> object:
    """`|` is the cursor."""
    found = at_cursor(text.replace("|", ""), text.index("|"))
    return found.field, found.stem, found.text, found.negated, found.others.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|", (None, "", "", False, "")),
        ("he|", (None, "", "he", False, "")),
        ("web |", (None, "", "", False, "web")),
        ("web| slot:A", (None, "", "web", False, "slot:A")),
        ("state:|", (Field.STATE, "state:", "", False, "")),
        ("STATE:De|", (Field.STATE, "STATE:", "de", False, "")),
        ("state:degraded,un|", (Field.STATE, "state:degraded,", "un", False, "")),
        ("state:degraded,|", (Field.STATE, "state:degraded,", "", False, "")),
        ("slot:A not state:de|", (Field.STATE, "state:", "de", True, "slot:A")),
        ("slot:A not | x", (None, "", "", True, "slot:A x")),
        ("version:<41|", (Field.VERSION, "version:<", "41", False, "")),
        ("version:>=|", (Field.VERSION, "version:>=", "", False, "")),
        ("label:zo|", (Field.LABEL, "label:", "zo", False, "")),
        ("label:zone=eu|", (Field.LABEL, "label:zone=", "eu", False, "")),
        ("label:zone=a,rack=|", (Field.LABEL, "label:zone=a,rack=", "", False, "")),
        ('label:room="hall |', (Field.LABEL, "label:room=", "hall ", False, "")),
        ('name:"two wo|', (Field.NAME, "name:", "two wo", False, "")),
        ('"two words" name:x|', (Field.NAME, "name:", "x", False, '"two words"')),
        ("name:web*0|", (Field.NAME, "name:", "web0", False, "")),
        ("colour:r|", (None, "colour:", "r", False, "")),
        ("seen:>1|", (Field.SEEN, "seen:", ">1", False, "")),
        ("colour:red state:|", (Field.STATE, "state:", "", False, "")),  # the rest cannot be read: no other terms
    ],
)
def test_the_word_at_the_cursor(text: str, expected: object) -> None:
    assert typed(text) == expected


@pytest.mark.parametrize(
    ("text", "term", "expected"),
    [
        ("|", "state:degraded", "state:degraded |"),
        ("slot:A sta|", "state:degraded", "slot:A state:degraded |"),
        ("not sta| slot:A", "state:degraded", "not state:degraded |slot:A"),
        ("sta|te:healthy slot:A", "state:degraded", "state:degraded |slot:A"),
        ('name:"two wo|', 'name:"two words"', 'name:"two words" |'),
    ],
)
def test_a_taken_value_replaces_the_word(text: str, term: str, expected: str) -> None:
    whole, cursor = taken(at_cursor(text.replace("|", ""), text.index("|")), Suggestion(term))
    assert whole[:cursor] + "|" + whole[cursor:] == expected


def test_a_taken_field_waits_for_its_value() -> None:
    assert taken(at_cursor("ver", 3), Suggestion("version:", open=True)) == ("version:", 8)


def test_the_label_key_is_known_while_its_value_is_typed() -> None:
    assert at_cursor("label:zone=eu", 13).label_key == "zone"
    assert at_cursor("label:a=b,zone=eu", 17).label_key == "zone"
    assert at_cursor("label:zo", 8).label_key is None


@pytest.mark.parametrize(
    ("text", "operator"), [("version:<4", "<"), ("version:>=4", ">="), ("version:=4", "="), ("version:4", "")]
)
def test_the_operator_of_a_version(text: str, operator: str) -> None:
    assert at_cursor(text, len(text)).operator == operator


def test_every_field_is_offered() -> None:
    assert set(FIELD_WORDS) == set(Field)
    assert [each.term for each in fields_for(at_cursor("", 0))] == [*(f"{field}:" for field in FIELD_WORDS), "not "]
    assert [each.term for each in fields_for(at_cursor("he", 2))] == ["health:"]
    assert "not " not in [each.term for each in fields_for(at_cursor("not ", 4))]


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and text.isprintable()), st.booleans())
def test_a_suggested_value_is_read_as_that_value(value: str, negated: bool) -> None:
    text = "not name:" if negated else "name:"
    word = at_cursor(text, len(text))
    whole, cursor = taken(word, value_for(word, value, 1))
    query = parse(whole)
    assert cursor == len(whole)
    assert len(query.terms) == 1
    assert [leaf.pattern.pieces for leaf in query.leaves] == [(value,)]  # type: ignore[union-attr]


@given(st.text(max_size=60), st.integers(-5, 70))
def test_any_text_can_be_typed(text: str, cursor: int) -> None:
    found = at_cursor(text, cursor)
    assert text.startswith(found.before + found.word)
    assert text.endswith(found.after)
    assert found.stem + found.word[len(found.stem) :] == found.word
    assert found.text is not None
    fields_for(found)
