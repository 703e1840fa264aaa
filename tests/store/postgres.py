"""A PostgreSQL of the tests' own, from Debian's package: in a temporary folder, reached by a socket alone, gone at the
end. Each test gets a database of its own in it.

It sorts words as people do and not by their bytes, as most servers do: whatever relies on the order of bytes shows.
Nothing in it survives a power failure, which makes it quick.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

PASSWORD = "op3n/sesame@home:5%"
"""Of the one user who needs one; with whatever makes a URL hard to take apart."""

_OLDEST = 15  # the first that can be told how to sort words without the system's locales
_ADMIN, _OWNER, _GUARDED = "admin", "team", "guarded"
_UNPRIVILEGED = "postgres"  # Debian's user; the server refuses to be run by root
_ACCESS = f"""
local all {_GUARDED} scram-sha-256
local all all trust
"""
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "max_wal_size": "128MB",
    "autovacuum": "off",
}
_PATIENCE = 30.0


def missing() -> str | None:
    """What the tests on PostgreSQL lack; None where nothing is."""
    if _programs() is None:
        return f"PostgreSQL {_OLDEST} or newer is not installed (Debian's package postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "the Python package psycopg is not installed"
    return None


class Postgres:
    """A server that runs.

    Attributes:
        folder: where it lies; its socket, too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._as: dict[str, Any] = {"cwd": folder}
        if os.getuid() == 0:
            shutil.chown(folder, _UNPRIVILEGED, _UNPRIVILEGED)
            self._as |= {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED, "extra_groups": []}
        self._programs = _programs() or Path()
        self._server: subprocess.Popen[bytes] | None = None
        self._made = 0

    def initialise(self) -> None:
        """Make the files of an empty server, and its users."""
        self._run(
            "initdb", "--pgdata", self._data, "--username", _ADMIN, "--auth", "trust", "--encoding", "UTF8",
            "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en-US", "--no-sync",
        )  # fmt: skip
        (self._data / "pg_hba.conf").write_text(_ACCESS)
        self.start()
        self.ask(f"CREATE ROLE {_OWNER} LOGIN")
        quoted = PASSWORD.replace("'", "''")
        self.ask(f"CREATE ROLE {_GUARDED} LOGIN PASSWORD '{quoted}' IN ROLE {_OWNER}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._programs / "postgres", "-D", self._data, "-k", self.folder]
        for name, value in _SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        end_with_us = shutil.which("setpriv")  # so that tests which are killed leave no server behind
        before = [end_with_us, "--pdeathsig", "INT", "--"] if end_with_us else []
        with self._log.open("ab") as log:
            self._server = subprocess.Popen([*before, *command], stdout=log, stderr=log, **self._as)
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                return self.ask("SELECT 1")
            except OSError as error:
                if self._server.poll() is not None or time.monotonic() > give_up:
                    said = self._log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL does not start: {error}\n{said}") from error
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once: whoever is connected is cut off."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)
                self._server.wait()
        self._server = None

    def ask(self, *statements: str) -> None:
        """Carry out statements as the administrator. Raises OSError where the server does not answer."""
        import psycopg

        try:
            connection = psycopg.connect(host=str(self.folder), dbname="postgres", user=_ADMIN, autocommit=True)
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error
        with connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """URL of an empty database, which is dropped on leaving; its owner is no administrator."""
        self._made += 1
        name = f"store_{self._made}"
        self.ask(f"CREATE DATABASE {name} OWNER {_OWNER}")
        try:
            yield self.url(name)
        finally:
            self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str, user: str = _OWNER) -> str:
        """URL of a database, without a password."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def guarded_url(self, url: str, password: str = PASSWORD) -> str:
        """The same database for the user who needs a password, which stands in the URL."""
        return url.replace(f"//{_OWNER}@", f"//{_GUARDED}:{quote(password, safe='')}@")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], capture_output=True, text=True, check=False, **self._as
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def a_postgres() -> Iterator[Postgres]:
    """A server that lasts as long as the block. Its folder has a short path: a socket's may have about 100 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="itopctl-postgres-", dir="/tmp"))
    made = Postgres(folder)
    try:
        made.initialise()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Folder of the server's programs, the newest if there are several."""
    found = {}
    for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"):
        version = path.parts[-3]
        if version.isdigit() and int(version) >= _OLDEST:
            found[int(version)] = path.parent
    return found[max(found)] if found else None
