"""The file: how it is made, who else may use it, and what becomes of one that is no store of this version."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox import Outbox
from seawall.outbox.sqlite import SqliteStore, schema
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, make_work


def waiting(path: Path) -> int:
    opened = SqliteStore(str(path)).open(BLOCKING)
    try:
        return drive(opened.stats()).waiting
    finally:
        drive(opened.close())


def put_one(path: Path, **settings: Any) -> SqliteStore:
    store = SqliteStore(str(path), **settings)
    drive(store.open(BLOCKING).put(make_work()))
    drive(store.open(BLOCKING).close())
    return store


# -- by URL ------------------------------------------------------------------------------------------------------------


def test_three_slashes_are_a_path_from_here_and_four_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SqliteStore.from_url("sqlite:///var/outbox.db", name="x").path == "var/outbox.db"
    assert SqliteStore.from_url(f"sqlite:///{tmp_path}/a%20b.db", name="x").path == f"{tmp_path}/a b.db"
    outbox = Outbox("sqlite:///outbox.db?synchronous=normal&timeout=2s", backlog=7, when_full="drop-oldest")
    outbox.stats()
    outbox.close()
    assert (tmp_path / "outbox.db").exists()
    told = outbox.store.snapshot()
    assert (told["synchronous"], told["backlog"], told["when_full"]) == ("normal", 7, "drop-oldest")


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_has_gone(tmp_path: Path, how: str) -> None:
    """SQLite goes on writing to what it has open, whatever has its name now: nobody would ever find it there."""
    path = tmp_path / "outbox.db"
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    for end in ("", "-wal", "-shm"):
        file = Path(f"{path}{end}")
        file.unlink() if how == "deleted" else file.rename(f"{file}.old")
    if how == "replaced":
        put_one(path)
    drive(opened.put(make_work()))
    assert waiting(path) == (2 if how == "replaced" else 1)
    assert drive(opened.stats()).waiting == waiting(path)
    drive(opened.close())


def test_a_process_that_goes_elsewhere_keeps_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons change their directory, and a store opens its file again after a fork or a fault."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    outbox = Outbox("sqlite:///outbox.db")
    drive(outbox.store.open(BLOCKING).put(make_work()))
    outbox.close()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert outbox.stats().waiting == 1
    outbox.close()
    assert not any(Path().iterdir())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite+other:///outbox.db", "no URL of a store"),
        ("sqlite://", "sqlite:///path/to/file.db"),
        ("sqlite:///", "sqlite:///path/to/file.db"),
        ("sqlite://host/outbox.db", "sqlite:///path/to/file.db"),
        ("sqlite:///outbox.db?sync=off", "no setting 'sync'; known: synchronous, timeout"),
        ("sqlite:///outbox.db?synchronous=off", "expected 'full' or 'normal'"),
        ("sqlite:///outbox.db?timeout=0", "timeout"),
        ("sqlite:///:memory:", "expected the path of a file"),
    ],
)
def test_a_wrong_url_is_told_with_what_is_allowed(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Outbox(url)


# -- making it ---------------------------------------------------------------------------------------------------------


def test_only_its_user_may_read_what_is_stored(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "outbox.db"))
    drive(store.open(BLOCKING).put(make_work()))
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600}
    drive(store.open(BLOCKING).close())


def test_nothing_is_made_before_the_first_step(tmp_path: Path) -> None:
    SqliteStore(str(tmp_path / "outbox.db")).open(BLOCKING)
    assert not list(tmp_path.iterdir())


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    outbox = Outbox(f"sqlite:///{tmp_path}/none/outbox.db")
    with pytest.raises(BackendUnavailable, match=r"there is no directory .*none; make it"):
        outbox.stats()

    @outbox.operation("mail.send")
    def send() -> None: ...

    with pytest.raises(NotQueued, match="there is no directory"):
        outbox.put(send)
    (tmp_path / "none").mkdir()
    outbox.put(send)
    outbox.close()


def test_the_log_is_full_and_synced_unless_told_otherwise(tmp_path: Path) -> None:
    for synchronous, number in (("full", 2), ("normal", 1)):
        store = put_one(tmp_path / f"{synchronous}.db", synchronous=synchronous)
        db = store._desk.file.connection(1_000)
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == number
        drive(store.open(BLOCKING).close())


# -- who else has it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory, and steps by a user whom modes of files bind."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        yield Path(place)


def as_nobody(path: Path) -> str:
    """The error of a put by a user without rights, in a process of its own."""
    program = (
        "import sys\n"
        "from seawall.outbox.sqlite import SqliteStore\n"
        "from seawall.runtime.blocking import BLOCKING, drive\n"
        "from tests.outbox.benches import make_work\n"
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "try: drive(SqliteStore(sys.argv[1]).open(BLOCKING).put(make_work()))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_file_that_may_not_be_written_is_told_and_left_where_it_is(unprivileged: Path) -> None:
    path = unprivileged / "outbox.db"
    put_one(path)
    for mode in (0o444, 0o000):
        path.chmod(mode)
        assert as_nobody(path).startswith("BackendUnavailable")
    assert "outbox.db cannot be" in as_nobody(path)
    path.chmod(0o600)
    assert not kept(unprivileged) and waiting(path) == 1
    unprivileged.chmod(0o755)
    assert as_nobody(unprivileged / "new.db").startswith("BackendUnavailable")


def test_a_directory_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="cannot be opened"):
        put_one(tmp_path)


def test_a_locked_file_is_waited_for_no_longer_than_the_timeout_and_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put_one(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = SqliteStore(str(path), timeout="200ms")
    begun = clock.now_ns()
    with pytest.raises(BackendUnavailable, match="is locked by another process"):
        drive(store.open(BLOCKING).put(make_work()))
    assert 0.15e9 < clock.now_ns() - begun < 1.5e9
    assert drive(store.open(BLOCKING).stats()).waiting == 1, "who reads does not wait"
    other.execute("COMMIT")
    drive(store.open(BLOCKING).put(make_work()))
    drive(store.open(BLOCKING).close())
    other.close()
    assert [each.name for each in tmp_path.iterdir()] == ["outbox.db"] and waiting(path) == 2


# -- other versions, other applications --------------------------------------------------------------------------------


def test_a_newer_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put_one(path)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BackendUnavailable, match=r"written by a newer Seawall \(version 2 .* knows 1\)"):
        put_one(path)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["outbox.db"]


def test_an_older_file_is_brought_up_to_date_with_all_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one transaction: a step that fails leaves the old file, whole."""
    path = tmp_path / "outbox.db"
    put_one(path)
    monkeypatch.setattr(schema, "VERSION", 3)
    steps = {1: ("ALTER TABLE work ADD COLUMN note TEXT",), 2: ("DROP TABLE none",)}
    monkeypatch.setattr(schema, "STEPS", steps)
    with pytest.raises(BackendUnavailable, match="no such table: none"):
        waiting(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert "note" not in [row[1] for row in db.execute("PRAGMA table_info(work)")]
    db.close()
    steps[2] = ("CREATE INDEX work_note ON work (note)",)
    assert waiting(path) == 1
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert "note" in [row[1] for row in db.execute("PRAGMA table_info(work)")]
    db.close()


def test_there_is_a_step_from_every_older_version() -> None:
    assert sorted(schema.STEPS) == list(range(1, schema.VERSION))


def test_the_database_of_another_application_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BackendUnavailable, match="another application"):
        put_one(path)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["outbox.db"]


# -- corrupt files -----------------------------------------------------------------------------------------------------


def kept(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir() if ".corrupt-" in each.name)


def test_a_file_that_is_no_database_is_kept_aside_and_the_outbox_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database " * 1_000)
    store = SqliteStore(str(path))
    with pytest.raises(BackendUnavailable, match=r"is corrupt .* kept as .*outbox\.db\.corrupt-"):
        drive(store.open(BLOCKING).put(make_work()))
    drive(store.open(BLOCKING).put(make_work()))
    assert drive(store.open(BLOCKING).stats()).waiting == 1
    drive(store.open(BLOCKING).close())
    name = Path(store.snapshot()["corrupt_kept_as"])
    assert name.read_bytes() == b"not a database " * 1_000


def test_two_corrupt_files_of_one_second_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for number in range(2):
        path.write_bytes(b"%d" % number * 5_000)
        with pytest.raises(BackendUnavailable, match="is corrupt"):
            waiting(path)
        path.unlink(missing_ok=True)
    assert len(kept(tmp_path)) == 2


def damaged(path: Path) -> SqliteStore:
    """A store whose file has lost pages while it was open."""
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    for _ in range(50):
        drive(opened.put(make_work(payload=bytes(3_000))))
    drive(opened.close())
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 30)
    return store


def test_damage_within_is_found_by_whoever_meets_it_and_the_file_kept_aside(tmp_path: Path) -> None:
    store = damaged(tmp_path / "outbox.db")
    opened = store.open(BLOCKING)
    told: list[str] = []
    for _ in range(3):
        try:
            drive(opened.put(make_work()))
        except BackendUnavailable as error:
            told.append(str(error))
    assert told and all("corrupt" in each for each in told)
    assert drive(opened.stats()).waiting == 3 - len(told)
    assert len([each for each in kept(tmp_path) if not each.endswith(("-wal", "-shm"))]) == 1
    drive(opened.close())


def test_a_corrupt_file_stays_where_it_is_while_anybody_has_it_open(tmp_path: Path) -> None:
    """What others store in it would be lost to everybody: another process, or another store of this one."""
    path = tmp_path / "outbox.db"
    put_one(path)
    program = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1]); db.execute('SELECT count(*) FROM work').fetchone()\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    try:
        with pytest.raises(BackendUnavailable, match="while another process has it open"):
            waiting(path)
        assert path.exists() and not kept(tmp_path)
    finally:
        other.communicate("")
    with pytest.raises(BackendUnavailable, match="kept as"):
        waiting(path)
    assert kept(tmp_path)


def test_a_corrupt_file_stays_while_another_store_of_this_process_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    first = SqliteStore(str(path))
    drive(first.open(BLOCKING).put(make_work()))
    with path.open("r+b") as file:
        file.write(b"\xff" * 8192)
    (tmp_path / "outbox.db-wal").write_bytes(b"")
    with pytest.raises(BackendUnavailable, match="corrupt"):
        waiting(path)
    assert path.exists()
    drive(first.open(BLOCKING).close())


# -- size --------------------------------------------------------------------------------------------------------------


def test_a_backlog_that_was_drained_leaves_a_small_file_and_a_small_log(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    store = SqliteStore(str(path), synchronous="normal")
    opened = store.open(BLOCKING)
    for _ in range(600):
        drive(opened.put(make_work(payload=bytes(60_000))))
    assert path.stat().st_size > 25_000_000
    while leases := drive(opened.lease(20, HOUR))[0]:
        for lease in leases:
            drive(opened.ack(lease))
    for _ in range(40):
        drive(opened.lease(1, HOUR))
    assert (tmp_path / "outbox.db-wal").stat().st_size <= 17 * 1024 * 1024
    drive(opened.close())
    assert path.stat().st_size < 6_000_000
