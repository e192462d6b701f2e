"""Settings: read from the environment once, checked once, frozen. A wrong one stops the start by its name."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.core.errors import Misconfigured

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses to listen on that nobody can connect to: a join command must never carry one."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    database_url: str
    data_dir: Path
    http: Address
    gateway: Address
    public_url: str
    """Where browsers find the console; origin checks compare with it."""
    agent_url: str
    """Where agents connect: ws(s)://…/agent."""
    live_url: str
    """Where the console's pages connect: ws(s)://…/live."""
    secret_key: str
    allow_unencrypted: bool
    """Nodes beyond loopback may use ws:// only with this (rule 11)."""

    @property
    def secure_cookies(self) -> bool:
        return self.public_url.startswith("https:")


def load_settings(environ: Mapping[str, str] = os.environ, *, existing: bool = False) -> Settings:
    """Settings from `TWINROOT_*` (each secret also as `*_FILE`); Misconfigured names the variable that is wrong.

    `existing`: for what works beside a control plane that is there already. Nothing is made then, and where there is no
    data folder or embedded database that is an error too: a folder that was meant is not found by making another.
    """
    read = _Reader(environ)
    data_dir = Path(read.text("DATA_DIR", "twinroot-data")).absolute()
    http = read.address("HTTP", "127.0.0.1:8080")
    gateway = read.address("GATEWAY", "127.0.0.1:8090")
    database_url = read.database_url(f"sqlite:///{data_dir / 'twinroot.db'}")
    secret_key = read.secret("SECRET_KEY")
    if existing:
        _check_existing(database_url, data_dir, needs_folder=not secret_key)
    return Settings(
        database_url=database_url,
        data_dir=data_dir,
        http=http,
        gateway=gateway,
        public_url=read.url("PUBLIC_URL", f"http://{http}", ("http", "https")).rstrip("/"),
        agent_url=read.url("AGENT_URL", f"ws://{gateway}/agent", ("ws", "wss")),
        live_url=read.url("LIVE_URL", f"ws://{gateway}/live", ("ws", "wss")),
        secret_key=secret_key or _own_secret(data_dir),
        allow_unencrypted=read.flag("ALLOW_UNENCRYPTED"),
    )


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        return self._environ.get(f"TWINROOT_{name}") or default

    def secret(self, name: str) -> str:
        variable = f"TWINROOT_{name}"
        direct, file = self._environ.get(variable, ""), self._environ.get(f"{variable}_FILE", "")
        if direct and file:
            raise Misconfigured(variable, f"set either it or {variable}_FILE, not both")
        if not file:
            return direct
        try:
            text = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{variable}_FILE", f"cannot read {file}: {error}") from error
        if not text:
            raise Misconfigured(f"{variable}_FILE", f"{file} is empty")
        return text

    def flag(self, name: str) -> bool:
        value = self.text(name, "0")
        if value not in ("0", "1"):
            raise Misconfigured(f"TWINROOT_{name}", f"must be 0 or 1, not “{value}”")
        return value == "1"

    def address(self, name: str, default: str) -> Address:
        value = self.text(name, default)
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
            raise Misconfigured(f"TWINROOT_{name}", f"must be HOST:PORT, not “{value}”")
        return Address(host.strip("[]"), int(port))

    def url(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value == default and urlsplit(default).hostname in EVERYWHERE:
            raise Misconfigured(
                f"TWINROOT_{name}", f"must be set: {default} is where it listens, not where it is reached"
            )
        if not _is_url(value, schemes):
            raise Misconfigured(f"TWINROOT_{name}", f"must be a {' or '.join(schemes)} URL, not “{value}”")
        return value

    def database_url(self, default: str) -> str:
        value = self.secret("DATABASE_URL") or default
        if not value.startswith(("sqlite:///", "postgresql://")):
            raise Misconfigured("TWINROOT_DATABASE_URL", "must begin with sqlite:/// or postgresql://")
        try:
            make_url(value)
        except (ArgumentError, ValueError) as error:  # neither says the password
            raise Misconfigured("TWINROOT_DATABASE_URL", "is no database URL; see its port and escapes") from error
        return value


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    """One that can stand in headers and in commands as it is."""
    try:
        parts = urlsplit(value)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = value.isascii() and value.isprintable() and not set(value) & set(" ;,'\"<>\\")
    return parts.scheme in schemes and bool(parts.hostname) and port_is_right and plain


def _check_existing(database_url: str, data_dir: Path, *, needs_folder: bool) -> None:
    """Misconfigured where the embedded database, or the folder with the generated secret, is not there."""
    parsed = make_url(database_url)
    file = parsed.database if parsed.drivername.startswith("sqlite") else None
    if file and file != str(data_dir / "twinroot.db"):
        if not Path(file).exists():
            raise Misconfigured(
                "TWINROOT_DATABASE_URL", f"there is no {file}: run twinroot up or twinroot migrate first"
            )
    elif file and not Path(file).exists():
        raise Misconfigured(
            "TWINROOT_DATA_DIR",
            f"no database in {data_dir}: set it to the data folder of the control plane that is meant, or make one by "
            "twinroot up or twinroot migrate",
        )
    if needs_folder and not data_dir.is_dir():
        raise Misconfigured(
            "TWINROOT_DATA_DIR",
            f"there is no {data_dir}: set it to the data folder of the control plane that is meant, or set "
            "TWINROOT_SECRET_KEY",
        )


def _own_secret(data_dir: Path) -> str:
    """The embedded default makes its own secret once and keeps it beside the data, readable by its owner only."""
    file = data_dir / "secret-key"
    try:
        if not file.exists():
            _make_secret(file)
        secret = file.read_text().strip()
    except OSError as error:
        raise Misconfigured("TWINROOT_DATA_DIR", f"{error.filename or file}: {error.strerror}") from error
    if not secret:
        raise Misconfigured("TWINROOT_DATA_DIR", f"{file} is empty: put the former secret back, or remove it")
    return secret


def _make_secret(file: Path) -> None:
    """Whole or not at all, and the first of several processes that start at once wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".secret-key-", dir=file.parent)  # readable by its owner only
    try:
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            os.link(name, file)
    finally:
        Path(name).unlink()
