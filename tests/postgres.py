"""One private PostgreSQL server for a test session: own folder, unix socket only, nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_START_S = 60.0
_ACCOUNT = "postgres"
"""PostgreSQL refuses to run as root; Debian's package brings this account."""


class Unavailable(Exception):
    """Why there is no PostgreSQL here; the reason of the skip."""


@contextmanager
def private_server() -> Iterator[str]:
    """Yields the URL of its `postgres` database without the database's name; see `url`."""
    programs = _programs()
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="twinroot-pg-"))
    try:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        _initialise(programs, folder, account)
        _servers[str(folder)] = _start(programs, folder, account)
        try:
            _await(folder, _servers[str(folder)])
            yield str(folder)
        finally:
            _stop(_servers.pop(str(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_servers: dict[str, subprocess.Popen[bytes]] = {}
"""Folder → the running server."""


@contextmanager
def away(folder: str) -> Iterator[None]:
    """The server is stopped meanwhile, as by an upgrade of its package."""
    _stop(_servers[folder])
    try:
        yield
    finally:
        _servers[folder] = _start(_programs(), Path(folder), _account())
        _await(Path(folder), _servers[folder])


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)  # "fast": ends sessions and stops
    server.wait(timeout=30)


def url(folder: str, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={folder}"


def execute(folder: str, statement: str) -> None:
    """Run a statement that cannot stand in a transaction, such as CREATE DATABASE."""
    with psycopg.connect(url(folder, "postgres"), autocommit=True) as conn:
        conn.execute(statement.encode())


def prepare(folder: str, name: str) -> None:
    """Remember the contents of a fresh database, so that `restore` can bring them back."""
    with psycopg.connect(url(folder, name), autocommit=True) as conn:
        conn.execute(_PREPARE.encode())


def restore(folder: str, name: str) -> bool:
    """Bring back what `prepare` saw: twenty times as fast as another database for each test.

    Connections that are left are cut first. False where the tables themselves are not as they were: then only a new
    database helps.
    """
    with psycopg.connect(url(folder, name), autocommit=True) as conn:
        return bool(conn.execute("SELECT pristine.restore()").fetchone()[0])  # type: ignore[index]


_PREPARE = """
CREATE SCHEMA pristine;

CREATE FUNCTION pristine.shape() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(name, ' ' ORDER BY name) FROM (
        SELECT format('%s.%s:%s', class.relname, attname, atttypid) AS name
            FROM pg_attribute JOIN pg_class class ON class.oid = attrelid
            WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ) AS names
$$;

CREATE TABLE pristine.seen AS SELECT pristine.shape() AS shape;
CREATE TABLE pristine.filling (statement text);

DO $$
DECLARE name text; columns text; filled boolean;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
        CONTINUE WHEN NOT filled;
        SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
            WHERE attrelid = format('public.%I', name)::regclass AND attnum > 0
                AND NOT attisdropped AND attgenerated = '';
        EXECUTE format('CREATE TABLE pristine.%1$I AS SELECT %2$s FROM public.%1$I', name, columns);
        INSERT INTO pristine.filling VALUES
            (format('INSERT INTO public.%1$I (%2$s) SELECT %2$s FROM pristine.%1$I', name, columns));
    END LOOP;
END $$;

CREATE FUNCTION pristine.restore() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
    PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
    IF (SELECT shape FROM pristine.seen) IS DISTINCT FROM pristine.shape() THEN
        RETURN false;
    END IF;
    SET LOCAL session_replication_role = replica;  -- foreign keys are not looked at meanwhile
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        IF pg_relation_size(format('public.%I', name)::regclass) > 1000000 THEN
            EXECUTE format('TRUNCATE public.%I CASCADE', name);
        ELSE
            EXECUTE format('DELETE FROM public.%I', name);
        END IF;
    END LOOP;
    FOR name IN SELECT statement FROM pristine.filling LOOP
        EXECUTE name;
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER SEQUENCE public.%I RESTART', name);
    END LOOP;
    RETURN true;
END $$;
"""


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    wheel = importlib.util.find_spec("pgserver")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    raise Unavailable("PostgreSQL is not here: install Debian's postgresql or PyPI's pgserver")


def _account() -> pwd.struct_passwd | None:
    """The account to run as; None: our own."""
    if os.geteuid() != 0:
        return None
    for name in (_ACCOUNT, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _initialise(programs: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        cwd=folder,
        **_as(account),
    )


def _start(programs: Path, folder: Path, account: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        "shared_buffers": "32MB",
        "autovacuum": "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *options],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            **_as(account),
        )


def _as(account: pwd.struct_passwd | None) -> dict[str, object]:
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _await(folder: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(url(str(folder), "postgres")).close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}") from error
            time.sleep(0.05)
