"""What is PostgreSQL's own: a server that may be far, slow, gone or closed to us, and passwords."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from itopctl.errors import EnvironmentUnfitError, ItopctlError
from itopctl.store import database, tables
from itopctl.store.database import Store, open_store, upsert
from tests.store.builders import Lab, config, run_id
from tests.store.postgres import PASSWORD, Postgres

pytestmark = pytest.mark.usefixtures("postgres")

A = run_id(1)


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as made:
        yield made


@pytest.fixture
def lab(url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab.at(tmp_path / "results", url)
    yield made
    made.store.close()


# Passwords --------------------------------------------------------------------------------------------------


def test_a_user_with_a_password_gets_in(postgres: Postgres, url: str) -> None:
    store = Store(postgres.guarded_url(url))
    with store.read() as connection:
        assert connection.execute(sa.text("SELECT current_user")).scalar_one() == "guarded"
    store.close()


def test_a_password_may_stand_in_the_environment_or_a_file_as_for_every_program(
    postgres: Postgres, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = url.replace("//team@", "//guarded@")
    with pytest.raises(EnvironmentUnfitError, match="password"):
        Store(without)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    Store(without).close()
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:guarded:{PASSWORD.replace(':', chr(92) + ':')}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    Store(without).close()


def test_a_wrong_password_is_the_environments_fault_and_is_not_repeated(postgres: Postgres, url: str) -> None:
    with pytest.raises(EnvironmentUnfitError, match="password authentication failed") as caught:
        Store(postgres.guarded_url(url, "wr0ng"))
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret@localhost:1/name",
        "postgresql+psycopg://me:s3cret/s3cret@localhost:1/name",
        "postgresql+psycopg://me:s3cret@s3cret@localhost:1/name",
        "postgresql+psycopg://me:x@localhost:s3cret@localhost:1/name",
        "postgresql+psycopg://:s3cret@localhost:1/name",
        "postgresql+psycopg://localhost:1/name?password=s3cret",
        "postgresql+psycopg://localhost:1/name?user=me&password=s3cret&connect_timeout=3",
        "postgresql+psycopg://localhost:1/name?sslpassword=s3cret",
        "postgresql+psycopg://me:s3cret%40%2F@localhost:1/name",
        "postgresql+nonsense://me:s3cret@localhost:1/name",
        "postgresql://me:s3cret@localhost:port/name",
        "postgresql:/me:s3cret@localhost/name",
        "postgresql+psycopg:me:s3cret@localhost/name",
        "me:s3cret@localhost/name",
        "mysql://me:s3cret@localhost:1/name",
        "postgresql+psycopg://me:s3cret@localhost:1/name?nonsense=1",
    ],
)
def test_no_part_of_a_password_is_in_a_message(tmp_path: Path, url: str) -> None:
    with pytest.raises(ItopctlError) as caught:
        open_store(tmp_path / "itop.db", url)
    assert "s3cret" not in str(caught.value)


# Servers that are not as they should be ---------------------------------------------------------------------


def test_a_server_that_is_not_there_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match=r"postgresql\+psycopg://.*cannot be used: .*[Cc]onnection refused"):
        Store("postgresql+psycopg://me@127.0.0.1:1/name")
    with pytest.raises(EnvironmentUnfitError, match="No such file or directory"):
        Store(f"postgresql+psycopg://me@/name?host={tmp_path}")


def test_a_message_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError) as caught:
        Store("postgresql+psycopg://me@127.0.0.1:1/name")
    assert "\n" not in str(caught.value) and "?." not in str(caught.value)


def test_a_database_that_is_not_there_is_named(postgres: Postgres) -> None:
    with pytest.raises(EnvironmentUnfitError, match='database "nowhere" does not exist'):
        Store(postgres.url("nowhere"))


def test_a_database_that_may_only_be_read_is_said_to_be_so(postgres: Postgres, url: str) -> None:
    Store(url).close()
    name = sa.make_url(url).database
    postgres.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = Store(url)
    with pytest.raises(EnvironmentUnfitError, match="read-only"), store.write() as connection:
        upsert(connection, tables.meta, [{"key": "a", "value": "b"}])
    store.close()


def test_tables_of_the_same_name_that_are_somebody_elses_are_left_alone(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE meta (colour TEXT)")
    with pytest.raises(EnvironmentUnfitError, match="cannot be used"):
        Store(url)
    assert sa.inspect(engine).get_table_names() == ["meta"]
    engine.dispose()


def test_advice_about_the_file_of_a_results_folder_is_not_given_about_a_server(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE meta (colour TEXT)")
    engine.dispose()
    with pytest.raises(EnvironmentUnfitError) as caught:
        Store(url)
    assert "itop.db" not in str(caught.value)


def test_a_schema_other_than_public_can_hold_the_store(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA lab")
    store = Store(f"{url}&options=-csearch_path%3Dlab")
    assert set(sa.inspect(engine).get_table_names(schema="lab")) == set(tables.metadata.tables)
    assert sa.inspect(engine).get_table_names(schema="public") == []
    store.close()
    engine.dispose()


# Connections ------------------------------------------------------------------------------------------------


def test_a_connection_that_was_cut_while_nobody_used_it_is_made_anew(postgres: Postgres, url: str, lab: Lab) -> None:
    lab.sweep("one", {A: config()})
    assert lab.row(A)["state"] == "queued"
    postgres.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'team'")
    assert lab.row(A)["state"] == "queued"


def test_a_transaction_that_is_cut_off_leaves_nothing_and_says_so(postgres: Postgres, url: str) -> None:
    store = Store(url)
    with pytest.raises(EnvironmentUnfitError, match="cannot be used"), store.write() as connection:
        upsert(connection, tables.meta, [{"key": "a", "value": "b"}])
        postgres.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'team'")
        upsert(connection, tables.meta, [{"key": "c", "value": "d"}])
    with store.read() as connection:
        assert connection.execute(sa.select(tables.meta.c.key)).scalars().all() == ["schema_version"]
    store.close()


def test_a_writer_that_waits_in_vain_is_told_that_another_is_writing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BUSY_SECONDS", "_PATIENCE_SECONDS"):
        monkeypatch.setattr(database, name, 0.2, raising=False)
    store, other = Store(url), Store(url)
    refused = threading.Event()

    def write() -> None:
        with pytest.raises(EnvironmentUnfitError, match="another process has held it locked"), other.write():
            pass
        refused.set()

    thread = threading.Thread(target=write, daemon=True)
    with store.write():
        thread.start()
        assert refused.wait(10)
    thread.join()
    store.close()
    other.close()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_server_whose_transactions_are_stricter_by_default_makes_no_difference(
    postgres: Postgres, url: str, level: str
) -> None:
    """A writer sees what those wrote for whom it waited."""
    postgres.ask(f"ALTER DATABASE {sa.make_url(url).database} SET default_transaction_isolation = '{level}'")
    store, other = Store(url), Store(url)
    began = threading.Event()

    def write() -> None:
        with other.write() as connection:
            began.set()
            upsert(connection, tables.meta, [{"key": "a", "value": "b"}])
            threading.Event().wait(0.2)

    thread = threading.Thread(target=write)
    thread.start()
    assert began.wait(20)
    with store.write() as connection:
        found = connection.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == "a")).scalars().all()
        upsert(connection, tables.meta, [{"key": "a", "value": "c"}])
    thread.join()
    assert found == ["b"]
    for each in (store, other):
        each.close()
