from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.query import (
    AnyOf,
    BadQuery,
    Compare,
    Field,
    Flag,
    Is,
    Label,
    Not,
    Pattern,
    Seen,
    Text,
    Version,
    parse,
    quoted,
)


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("web", Text(Pattern(("web",)))),
        ('"two words"', Text(Pattern(("two words",)))),
        ("version:<4012", Version(Compare.LESS, "4012")),
        ("version:>=4012.1", Version(Compare.AT_LEAST, "4012.1")),
        ("version:=4012", Is(Field.VERSION, Pattern(("4012",)))),
        ("version:4152.*", Is(Field.VERSION, Pattern(("4152.", "")))),
        ("slot:B", Is(Field.SLOT, Pattern(("B",)))),
        ("HEALTH:degraded", Is(Field.HEALTH, Pattern(("degraded",)))),
        ("label:zone=a", Label("zone", Pattern(("a",)))),
        ("label:canary", Label("canary", None)),
        ('label:zone="a,b*"', Label("zone", Pattern(("a,b*",)))),
        ("seen:>1h", Seen(Compare.MORE, 3600.0)),
        ("seen:<=90s", Seen(Compare.AT_MOST, 90.0)),
        ("seen:2d", Seen(Compare.LESS, 172_800.0)),
        ("pinned:yes", Flag(Field.PINNED, True)),
        ("not label:canary", Not(Label("canary", None))),
        ("not not slot:A", Is(Field.SLOT, Pattern(("A",)))),
        (
            "state:degraded,unhealthy",
            AnyOf((Is(Field.STATE, Pattern(("degraded",))), Is(Field.STATE, Pattern(("unhealthy",))))),
        ),
    ],
)
def test_terms(text: str, term: object) -> None:
    assert parse(text).terms == (term,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo:bar", "There is no field “foo”"),
        ("health:fine", "healthy, degraded, unhealthy, unknown"),
        ("seen:>1x", "seen:>1h"),
        ("seen:soon", "no time"),
        ("version:", "has no value"),
        ("version:<", "no version to compare with"),
        ("label:=a", "no label key"),
        ('label:"a b"=c', "no label key"),
        ("pinned:maybe", "yes or no"),
        ("slot:A not", "at the end"),
        ('name:"web', "opened and not closed"),
        ("x " * 31, "at most 30"),
        ("slot:" + ",".join("x" * 31), "31 terms and values; at most 30"),
        ("x" * 1001, "at most 1000"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(BadQuery, match=says):
        parse(text)


def test_words_keep_what_was_typed_and_toggle() -> None:
    query = parse('slot:B  not label:canary "a b"')
    assert query.words == ("slot:B", "not label:canary", '"a b"')
    assert query.toggled("slot:B").text == 'not label:canary "a b"'
    assert query.toggled("health:healthy").text == 'slot:B not label:canary "a b" health:healthy'


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        query = parse(text)
    except BadQuery as error:
        assert error.text
    else:
        assert parse(query.text).terms == query.terms


@given(st.text(min_size=1, max_size=30))
def test_quoted_values_are_taken_literally(value: str) -> None:
    for prefix in ("name:", ""):
        (term,) = parse(prefix + quoted(value)).terms
        assert isinstance(term, Is | Text)
        assert term.pattern == Pattern((value,))


def test_retired_nodes_are_asked_for() -> None:
    assert parse("state:retired").asks_retired
    assert parse("not admission:retired").asks_retired
    assert not parse("state:healthy retired").asks_retired


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (("web",), "WEB", True),
        (("web",), "web-1", False),
        (("web", ""), "web-1", True),
        (("", "-1"), "web-1", True),
        (("a", "a"), "a", False),  # a piece is not used twice
        (("a", "a"), "aa", True),
        (("", "b", "b", ""), "abab", True),
        (("", "b", "b", ""), "ab", False),
        (("x", "b", "xy"), "xbxy", True),
        (("x", "xy"), "xy", False),
        (("É",), "é", False),  # only ASCII letters are alike in both databases
        (("",), "", True),
        (("", ""), "", True),
    ],
)
def test_patterns(pattern: tuple[str, ...], text: str, matches: bool) -> None:
    assert Pattern(pattern).matches(text) is matches


@given(st.lists(st.text("aB", max_size=3), min_size=1, max_size=5), st.text("Ab", max_size=12))
def test_patterns_are_those_of_regular_expressions(pieces: list[str], text: str) -> None:
    wanted = re.fullmatch(".*".join(pieces), text, re.I | re.S) is not None
    assert Pattern(tuple(pieces)).matches(text) is wanted


def test_a_pattern_of_many_stars_is_soon_through() -> None:
    stars = parse(f"version:{'*a' * 200}*b").terms[0]
    assert isinstance(stars, Is)
    assert not stars.pattern.matches("a" * 256)
    with pytest.raises(BadQuery):
        parse(f"state:{'*' * 400}x")
