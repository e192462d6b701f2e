"""Each driver's table is total, no row is dead, and the facts are found as they should be."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path

import pytest

from agent.drivers.files import EVIDENCE as FILES
from agent.drivers.rauc import EVIDENCE as RAUC
from agent.evidence import (
    Contents,
    EvidenceTable,
    Expected,
    Found,
    Observed,
    Row,
    Standing,
    Verdict,
    find,
    judge,
    look_up,
)
from wire.messages import OperationKind, Slot

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
TABLES = {"files": EvidenceTable(FILES, tries=3), "rauc": RAUC}
EXPECTED = Expected(
    slot="b", digest=DIGEST, version="2", old_boot_id="old", operation_id="op", kind=OperationKind.ACTIVATE
)
ALL_FACTS = [Found(*facts) for facts in product((True, False), (True, False), Contents, Standing, (True, False))]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_knows_every_combination(name: str) -> None:
    assert len(ALL_FACTS) == 2 * 2 * len(Contents) * len(Standing) * 2
    for found in ALL_FACTS:
        assert look_up(TABLES[name], found) in Verdict


@pytest.mark.parametrize("name", TABLES)
def test_every_row_decides_something(name: str) -> None:
    table = TABLES[name]
    deciding = {next(row for row in table.rows if row.fits(found)) for found in ALL_FACTS}
    assert deciding == set(table.rows)


@pytest.mark.parametrize("name", TABLES)
def test_updated_needs_a_new_boot_of_the_slot_with_nothing_else_in_it(name: str) -> None:
    for found in ALL_FACTS:
        good = found.contents in (Contents.EQUAL, Contents.NOT_EXPECTED)
        updated = look_up(TABLES[name], found) is Verdict.UPDATED
        assert updated == (found.rebooted and found.booted and good)


@pytest.mark.parametrize("name", TABLES)
def test_without_a_new_boot_id_nothing_was_switched(name: str) -> None:
    for found in ALL_FACTS:
        assert (look_up(TABLES[name], found) is Verdict.NEVER_SWITCHED) or found.rebooted


NEW_BOOT_OF_A = [
    # good, tries left, next boot → files, rauc
    (False, 0, False, Verdict.FELL_BACK, Verdict.FELL_BACK),
    (False, None, True, Verdict.FELL_BACK, Verdict.FELL_BACK),
    (None, 3, True, Verdict.NEVER_SWITCHED, Verdict.NEVER_SWITCHED),
    (None, 3, False, Verdict.NEVER_SWITCHED, Verdict.UNKNOWN),
    (None, 2, True, Verdict.FELL_BACK, Verdict.NEVER_SWITCHED),
    (None, 0, False, Verdict.NEVER_SWITCHED, Verdict.NEVER_SWITCHED),
    (None, None, True, Verdict.UNKNOWN, Verdict.NEVER_SWITCHED),
    (None, None, False, Verdict.UNKNOWN, Verdict.UNKNOWN),
    (True, None, False, Verdict.NEVER_SWITCHED, Verdict.NEVER_SWITCHED),
    (True, None, True, Verdict.NEVER_SWITCHED, Verdict.NEVER_SWITCHED),
]


@pytest.mark.parametrize(("good", "tries", "next_boot", "files", "rauc"), NEW_BOOT_OF_A)
def test_a_new_boot_of_the_old_slot(
    good: bool | None, tries: int | None, next_boot: bool, files: Verdict, rauc: Verdict
) -> None:
    slot = Slot(name="b", booted=False, next_boot=next_boot, digest=DIGEST, good=good, tries_left=tries)
    observed = Observed(boot_id="new", slots=[Slot(name="a", booted=True, next_boot=not next_boot), slot])
    assert judge(TABLES["files"], EXPECTED, observed) is files
    if tries != 3:  # RAUC shows no tries
        assert judge(TABLES["rauc"], EXPECTED, observed) is rauc


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("digest", "verdict"), [(DIGEST, Verdict.UPDATED), (OTHER, Verdict.UNKNOWN), (None, Verdict.UNKNOWN)]
)
def test_what_was_booted_must_hold_the_expected_bytes(name: str, digest: str | None, verdict: Verdict) -> None:
    observed = Observed(boot_id="new", slots=[Slot(name="b", booted=True, next_boot=True, digest=digest)])
    assert judge(TABLES[name], EXPECTED, observed) is verdict


def test_no_expected_digest_is_nothing_to_compare() -> None:
    expected = Expected(
        slot="b", digest=None, version="2", old_boot_id="old", operation_id="op", kind=OperationKind.REBOOT
    )
    slot = Slot(name="b", booted=True, next_boot=True, digest=OTHER)
    found = find(TABLES["files"], expected, Observed(boot_id="new", slots=[slot]))
    assert found is not None
    assert found.contents is Contents.NOT_EXPECTED
    assert judge(TABLES["files"], expected, Observed(boot_id="new", slots=[slot])) is Verdict.UPDATED


def test_a_slot_that_is_gone_is_unknown() -> None:
    observed = Observed(boot_id="new", slots=[Slot(name="a", booted=True, next_boot=True)])
    assert judge(TABLES["files"], EXPECTED, observed) is Verdict.UNKNOWN


def test_a_table_with_a_gap_is_an_error() -> None:
    with pytest.raises(LookupError):
        look_up(
            EvidenceTable((Row(Verdict.UPDATED, booted=True),)),
            Found(True, False, *([Contents.EQUAL, Standing.GOOD]), True),
        )


@pytest.mark.parametrize("name", TABLES)
def test_the_documentation_shows_the_table(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs/drivers.md").read_text()
    assert f"### {name}\n{as_markdown(TABLES[name])}\n" in page


def as_markdown(table: EvidenceTable) -> str:
    facts = [field.name for field in fields(Row) if field.name != "verdict"]
    words = {True: "yes", False: "no", None: ""}
    rows = [
        [
            *(words[value] if value is None or isinstance(value, bool) else str(value) for value in values),
            str(row.verdict),
        ]
        for row in table.rows
        for values in [[getattr(row, fact) for fact in facts]]
    ]
    head = [[fact.replace("_", " ") for fact in facts] + ["verdict"], ["---"] * (len(facts) + 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in head + rows)
