"""Fixtures for all tests: `database` is a freshly migrated one, once on SQLite and once on PostgreSQL."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import Address, Settings
from app.services.fleet import ensure_fleet
from app.store.database import Database, open_database
from app.store.migrate import migrate
from tests import postgres
from tests.server_kit import NOW

FLEETS = "tests/e2e/"
SEEDS = "tests/simulation/test_seeds_"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real fleets begin first: they take longest, and wait for their machines most of the time. Then what has one core
    busy for minutes, so that neither is left over at the end."""
    items.sort(key=lambda item: (not item.nodeid.startswith(FLEETS), not item.nodeid.startswith(SEEDS)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests recorded as `ran`: how many seeds, for example."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name == "ran" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `-n`: a file's tests stay together, for they share fixtures; real fleets never run beside each other.

    (xdist's own `loadgroup` does not see its marks with pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return FLEETS if nodeid.startswith(FLEETS) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of a running private PostgreSQL server (see tests.postgres.url)."""
    server = postgres.private_server()
    try:
        folder = server.__enter__()
    except postgres.Unavailable as reason:
        pytest.skip(str(reason))
    try:
        yield folder
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> Callable[[], str]:
    """Gives the URL of a database as if freshly migrated: the same one, until a test changes the tables themselves."""
    names = (f"test_{number}" for number in itertools.count(1))
    name = ""

    def fresh() -> str:
        nonlocal name
        if not name or not postgres.restore(postgres_server, name):
            name = next(names)
            postgres.execute(postgres_server, f"CREATE DATABASE {name}")
            _prepare(postgres.url(postgres_server, name))
            postgres.prepare(postgres_server, name)
        return postgres.url(postgres_server, name)

    return fresh


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file that is copied for each test."""
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    _prepare(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a migrated database of the test's own."""
    if request.param == "sqlite":
        file = tmp_path / "twinroot.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
        return
    yield request.getfixturevalue("postgres_database")()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of the test's own, with the fleet's row."""
    found = open_database(database_url)
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that point at this test's own folder; nothing listens on the addresses."""
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'twinroot.db'}",
        data_dir=tmp_path / "data",
        http=Address("127.0.0.1", 8080),
        gateway=Address("127.0.0.1", 8090),
        public_url="http://127.0.0.1:8080",
        agent_url="ws://127.0.0.1:8090/agent",
        live_url="ws://127.0.0.1:8090/live",
        secret_key="a secret of the tests",
        allow_unencrypted=False,
    )


def _prepare(url: str) -> None:
    migrate(url)
    fresh = open_database(url)
    ensure_fleet(fresh, NOW)
    fresh.close()
