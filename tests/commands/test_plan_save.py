"""`twinroot plan --save`: the fleet as it is, explained later without a database."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.commands.plan import plan
from app.config import Settings
from app.services.fleet import ensure_fleet
from app.store.database import open_database
from app.store.migrate import migrate
from tests.server_kit import NOW
from tests.services.admission_kit import asks, gateway, node


@pytest.fixture
def saved(settings: Settings, tmp_path: Path) -> Path:
    """Written from a database with one node that asks."""
    migrate(settings.database_url)
    db = open_database(settings.database_url)
    ensure_fleet(db, NOW)
    gateway(db)
    asks(db, node(db, "web-01", ["web"]))
    db.close()
    file = tmp_path / "fleet.json"
    done = CliRunner().invoke(plan, ["--save", str(file)], obj=settings)
    assert done.exit_code == 0 and "explains it" in done.output, done.output
    return file


def test_what_was_saved_is_explained(saved: Path) -> None:
    done = CliRunner().invoke(plan, ["--snapshot", str(saved), "--check"])
    assert done.exit_code == 0, done.output
    assert "web-01" in done.output and "The checker finds nothing wrong." in done.output


@pytest.mark.parametrize("arguments", [[], ["--snapshot", "a", "--save", "b"]])
def test_one_of_the_two_is_needed(arguments: list[str]) -> None:
    done = CliRunner().invoke(plan, arguments)
    assert done.exit_code != 0
