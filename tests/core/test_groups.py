from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Invalid
from app.core.group_policy import GroupPolicy
from app.core.groups import (
    MOST_REQUIREMENTS,
    Group,
    Grouping,
    check_name,
    check_precedence,
    effective,
    groups_of,
    parse_selector,
)

LABELS = {"zone": "a", "role": "web", "canary": ""}


def group(name: str, selector: str, precedence: int = 0) -> Group:
    return Group(f"group_{name}", name, parse_selector(selector), precedence, None, GroupPolicy(), "mb", 0.0)


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("zone=a", True),
        ("zone=b", False),
        ("zone=A", False),
        ("rack=1", False),
        ("zone!=a", False),
        ("zone!=b", True),
        ("rack!=1", True),
        ("canary", True),
        ("canary=", True),
        ("canary!=", False),
        ("rack", False),
        ("!rack", True),
        ("!canary", False),
        ("zone=a, role!=db, canary, !lab", True),
        ("zone=a, role!=web", False),
        (" zone = a ,", None),
        ("*", True),
    ],
)
def test_what_a_selector_takes(selector: str, taken: bool | None) -> None:
    if taken is None:
        with pytest.raises(Invalid):
            parse_selector(selector)
    else:
        assert parse_selector(selector).matches(LABELS) is taken


def test_spaces_around_signs_do_not_count() -> None:
    assert parse_selector(" zone = a ,role != db ") == parse_selector("zone=a,role!=db")


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("", "selects nothing"),
        (" , ", "selects nothing"),
        ("zone=a,*", "stands alone"),
        ("zone=a,,role=b", "names no label"),
        ("=a", "names no label"),
        ("a b=c", "names no label"),
        ("!zone=a", "names no label"),
        ("zone=" + "x" * 300, "at most 256"),
        ("zone=a\x00", "printable"),
        (",".join(["a=b"] * (MOST_REQUIREMENTS + 1)), "at most 20 parts"),
    ],
)
def test_what_is_no_selector(selector: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        parse_selector(selector)
    assert refused.value.field == "selector"


keys = st.sampled_from(["zone", "role", "a.b/c-d"])
values = st.sampled_from(["", "a", "b", "a=b", "x y"])
parts = st.one_of(
    keys, keys.map("!{}".format), st.builds("{}={}".format, keys, values), st.builds("{}!={}".format, keys, values)
)
selectors = st.one_of(st.just("*"), st.lists(parts, min_size=1, max_size=3).map(",".join))
labels = st.dictionaries(keys, values)


@given(selectors, labels)
def test_a_selector_reads_as_it_was_typed(text: str, some: dict[str, str]) -> None:
    selector = parse_selector(text)
    assert parse_selector(selector.text) == selector
    assert parse_selector(selector.text).matches(some) == selector.matches(some)


@given(st.lists(st.tuples(selectors, st.integers(-2, 2)), max_size=5), st.lists(labels, max_size=8))
def test_many_nodes_at_once_are_grouped_like_each_by_itself(
    made: list[tuple[str, int]], nodes: list[dict[str, str]]
) -> None:
    groups = [group(f"g{number}", selector, precedence) for number, (selector, precedence) in enumerate(made)]
    grouping = Grouping(groups)
    for node in [*nodes, *nodes]:
        assert grouping.of(node | {"other": "x"}) == groups_of(node, reversed(groups))


def test_the_highest_precedence_decides_then_the_name() -> None:
    groups = [group("b", "*"), group("a", "*"), group("top", "zone", 5), group("no", "rack", 9)]
    found = groups_of(LABELS, groups)
    assert [each.name for each in found] == ["top", "a", "b"]
    decided = effective(found)
    assert decided.policy_group is found[0]
    assert decided.budgets == found
    assert decided.notes == [
        "“top” decides channel, windows and soak: it has the highest precedence.",
        "The budgets of “top”, “a”, “b” all bind.",
    ]


def test_a_node_in_no_group() -> None:
    decided = effective(groups_of({}, [group("x", "zone")]))
    assert decided.policy_group is None and decided.budgets == ()
    assert "fleet's policy decides" in decided.notes[0]


@pytest.mark.parametrize("name", ["", "Edge", "a b", "-x", "x" * 41, "é"])
def test_names_that_filters_could_not_carry(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(name)
    assert refused.value.field == "name"


def test_names_are_trimmed() -> None:
    assert check_name(" edge-1 ") == "edge-1"


def test_a_precedence_that_no_column_holds() -> None:
    assert check_precedence(-7) == -7
    with pytest.raises(Invalid):
        check_precedence(10**7)
