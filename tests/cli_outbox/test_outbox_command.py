"""`seawall outbox`: an operator sees and handles the backlog; nothing is destroyed unasked, nothing steers his terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from seawall import cli
from seawall.cli import outbox_records
from seawall.errors import ConfigError
from seawall.outbox import Outbox

Say = Callable[..., tuple[int, str, str]]
EVIL = "bob \x1b[2J\x9b\u202e\r\n"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEAWALL_OUTBOX_URL", raising=False)
    return f"sqlite:///{tmp_path}/mails.db"


@pytest.fixture
def outbox(url: str) -> Iterator[Outbox]:
    """Two dead letters, one of which would like to steer a terminal, one that was tried, and three that wait."""
    box = Outbox(url, name="mails")

    @box.operation("mail.send", final=ValueError, base="1h", cap="1h")
    def send(address: str) -> None:
        if "@" not in address:
            raise ValueError(f"no address: {address}")
        raise ConnectionError("refused")

    @box.operation("index.update")
    def update(number: int, text: str) -> None: ...

    for address in ("ann", EVIL, "carl@example.org"):
        box.put(send, address)
    # The pause of the one that was tried is drawn: from nothing to an hour.
    box.worker().drain()
    for number in range(3):
        box.using(delay="1h").put(update, number, "größe")
    yield box
    box.close()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], url: str, outbox: Outbox) -> Say:
    """The exit code of a command on this store, and what it said."""

    def run(verb: str, *args: str, target: str | None = url) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["outbox", verb, *([target] if target else []), "--name", "mails", *args])
        return code, *capsys.readouterr()

    return run


def ids(outbox: Outbox, state: str) -> list[str]:
    return [work.id for work in outbox.records(state)]


def test_stats_count(say: Say) -> None:
    code, out, _ = say("stats")
    assert code == 0
    assert re.sub(r" +", " ", out).startswith("waiting 4\nleased 0\ndead 2\ndropped 0\noldest ")
    told = json.loads(say("stats", "--json")[1])
    assert (told["waiting"], told["dead"]) == (4, 2) and 0 < told["oldest_age"] < 60


def test_a_store_without_records_has_no_oldest(say: Say, outbox: Outbox) -> None:
    outbox.purge("waiting", "all")
    assert say("stats")[1].endswith("oldest   -\n")
    assert json.loads(say("stats", "--json")[1])["oldest_age"] is None


def test_a_store_that_cannot_tell_the_oldest_of_those_that_wait_says_so(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RabbitMQ cannot: a dash would say that nothing waits."""
    stats = outbox_records.Records.stats

    def blind(self: outbox_records.Records) -> dict[str, Any]:
        return {**stats(self), "oldest": None, "oldest_age": None}

    monkeypatch.setattr(outbox_records.Records, "stats", blind)
    assert say("stats")[1].endswith("oldest   not known to this kind of store\n")


def test_show_names_how_much_the_work_matters_and_json_has_the_number(say: Say, outbox: Outbox) -> None:
    key = ids(outbox, "dead")[0]
    assert "criticality      CRITICAL\n" in say("show", key)[1]
    assert json.loads(say("show", key, "--json")[1])[0]["criticality"] == 2


def test_one_record_is_counted_as_one(say: Say, outbox: Outbox) -> None:
    key = ids(outbox, "dead")[0]
    assert "Forget 1 dead letter for ever?" in say("purge", "--state", "dead", key)[2]


def test_the_store_may_stand_in_the_environment(say: Say, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEAWALL_OUTBOX_URL", url)
    assert say("stats", target=None)[0] == 0


def test_an_outbox_in_a_program_is_as_good(say: Say, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_app.py").write_text(
        f"from seawall.outbox import Outbox\noutbox = Outbox({url!r}, name='mails')\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        code, out, _ = say("stats", "--json", target="shop_app:outbox")
    finally:
        sys.modules.pop("shop_app", None)
    assert code == 0 and json.loads(out)["dead"] == 2


def test_an_application_beside_the_outbox_is_not_called_but_told_apart(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_site.py").write_text(
        "class Site:\n    def __call__(self, scope): ...\n"
        "from seawall.outbox import MemoryOutbox\napp = Site()\noutbox = MemoryOutbox()\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        code, _, err = say("stats", target="shop_site:app")
    finally:
        sys.modules.pop("shop_site", None)
    assert (code, err) == (
        2,
        "seawall outbox stats: shop_site:app is a Site, and no Outbox; there is shop_site:outbox\n",
    )


def test_list_shows_what_waits_and_not_what_is_in_it(say: Say) -> None:
    code, out, _ = say("list")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["ID", "OPERATION", "TRIES", "AGE", "DUE", "IN", "LAST", "ERROR"]
    assert len(lines) == 5 and "carl" not in out and "ConnectionError: refused" in out


def test_list_shows_dead_letters_with_their_cause(say: Say, outbox: Outbox) -> None:
    _, out, _ = say("list", "--state", "dead")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ids(outbox, "dead")
    assert "final  ValueError: no address: ann" in out


def test_nothing_in_a_record_steers_the_terminal(say: Say, outbox: Outbox) -> None:
    for args in (["list", "--state", "dead"], ["show", ids(outbox, "dead")[1]]):
        _, out, _ = say(*args)
        assert all(char.isprintable() or char == "\n" for char in out)
        assert "bob \\x1b[2J\\x9b\\u202e\\r\\n" in out
    _, out, _ = say("show", ids(outbox, "dead")[1], "--json")
    assert out.isascii() and "\x1b" not in out


def test_lists_are_bounded_and_say_so(say: Say) -> None:
    code, out, err = say("list", "--limit", "2")
    assert code == 0 and len(out.splitlines()) == 3
    assert err == "There are more than these 2: --limit shows more, export all.\n"
    assert say("list", "--limit", "4")[2] == ""


def test_lists_may_be_of_one_operation_and_of_each_state(say: Say) -> None:
    assert len(json.loads(say("list", "--operation", "index.update", "--json")[1])) == 3
    for state in ("leased", "dropped"):
        assert json.loads(say("list", "--state", state, "--json")[1]) == []


def test_show_tells_everything_of_a_record(say: Say, outbox: Outbox) -> None:
    (work,) = [work for work in outbox.records("waiting") if work.operation == "mail.send"]
    code, out, _ = say("show", work.id)
    assert code == 0
    for line in ("state            waiting", "attempts         1", "last_error       ConnectionError: refused"):
        assert line in out
    assert 'payload:\n    {"address":"carl@example.org"}\n' in out


def test_bytes_that_are_no_text_are_shown_in_base64(say: Say, outbox: Outbox) -> None:
    class Raw:
        def encode(self, arguments: Any, parameters: Any) -> bytes:
            return b"\xff\x00\x1b"

        def decode(self, payload: bytes, parameters: Any) -> Any: ...

    @outbox.operation("raw", codec=Raw())
    def raw() -> None: ...

    key = outbox.put(raw).id
    assert "payload, in base64:\n    /wAb\n" in say("show", key)[1]
    assert json.loads(say("show", key, "--json")[1])[0]["payload_base64"] == "/wAb"


def test_ids_that_are_unknown_are_told_and_the_others_shown(say: Say, outbox: Outbox) -> None:
    code, out, err = say("show", "nothing\x1b", ids(outbox, "dead")[0])
    assert code == 1
    assert err == "seawall outbox show: there is no record nothing\\x1b\n"
    assert "no address: ann" in out


def test_retry_gives_dead_letters_another_life(say: Say, outbox: Outbox) -> None:
    first, second = ids(outbox, "dead")
    assert say("retry", first) == (0, "1 of 1 dead letters are due again.\n", "")
    assert ids(outbox, "dead") == [second] and first in ids(outbox, "waiting")


def test_retry_tells_what_is_no_dead_letter(say: Say, outbox: Outbox) -> None:
    dead, waiting = ids(outbox, "dead")[0], ids(outbox, "waiting")[0]
    code, out, err = say("retry", dead, waiting, "nothing")
    assert (code, out) == (1, "1 of 3 dead letters are due again.\n")
    assert err == (
        f"seawall outbox retry: {waiting} is waiting: it is due by itself\n"
        "seawall outbox retry: there is no record nothing\n"
    )


def test_retry_dead_retries_all_or_those_of_an_operation(say: Say, outbox: Outbox) -> None:
    assert say("retry-dead", "--operation", "index.update")[1] == "0 of 0 dead letters are due again.\n"
    assert json.loads(say("retry-dead", "--json")[1]) == {"retried": 2}
    assert ids(outbox, "dead") == []


def test_nothing_is_destroyed_where_nobody_can_be_asked(say: Say, outbox: Outbox, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    code, out, err = say("purge", "--state", "dead")
    assert (code, out) == (2, "")
    assert err == "seawall outbox purge: Forget 2 dead letters for ever? There is nobody to answer: say --yes\n"
    assert len(ids(outbox, "dead")) == 2
    sys.stdin.close()


def test_purge_forgets_what_was_named_and_says_how_many(say: Say, outbox: Outbox) -> None:
    assert say("purge", "--state", "waiting", "--operation", "index.update", "--yes") == (
        0,
        "3 of 3 waiting records forgotten.\n",
        "",
    )
    first, second = ids(outbox, "dead")
    code, out, err = say("purge", first, "nothing", "--state", "dead", "--yes")
    assert (code, out) == (1, "1 of 1 dead letters forgotten.\n")
    assert err == "seawall outbox purge: there is no dead record nothing\n"
    assert ids(outbox, "dead") == [second] and outbox.stats().waiting == 1


def test_what_is_out_on_lease_cannot_be_purged(say: Say) -> None:
    with pytest.raises(SystemExit) as ended:
        say("purge", "--state", "leased", "--yes")
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        say("purge", "--yes")


def test_long_work_is_done_in_batches(say: Say, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store is held for long, and all of it is done."""
    monkeypatch.setattr(outbox_records, "PAGE", 2)
    monkeypatch.setattr(outbox_records, "BATCH", 2)
    assert say("purge", "--state", "waiting", "--yes")[1] == "4 of 4 waiting records forgotten.\n"
    assert say("retry-dead")[1] == "2 of 2 dead letters are due again.\n"
    assert outbox.stats().waiting == 2


def test_export_writes_lines_of_json_with_what_is_in_the_records(say: Say, outbox: Outbox, tmp_path: Path) -> None:
    code, out, err = say("export", "--state", "waiting")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err == "4 records\n"
    assert [each["id"] for each in told] == ids(outbox, "waiting")
    assert json.loads(told[-1]["payload"]) == {"number": 2, "text": "größe"}
    file = tmp_path / "dead.jsonl"
    file.write_text("old")
    code, out, err = say("export", "-o", str(file))
    assert (code, out, err) == (0, "", f"2 records in {file}\n")
    assert len(file.read_text().splitlines()) == 2 and file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_an_export_that_cannot_be_written_leaves_the_old_file(say: Say, tmp_path: Path, monkeypatch: Any) -> None:
    assert say("export", "-o", str(tmp_path / "none" / "x"))[0] == 1
    file = tmp_path / "dead.jsonl"
    file.write_text("old")
    monkeypatch.setattr(outbox_records.Records, "told", lambda *args, **kwargs: 1 / 0)
    code, _, err = say("export", "-o", str(file))
    assert code == 1 and "ZeroDivisionError" in err and file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_an_export_writes_into_pipes_and_through_links_and_replaces_neither(say: Say, tmp_path: Path) -> None:
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "kept.jsonl"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert say("export", "-o", str(pipe))[0] == 0
    assert len(reader.communicate()[0].splitlines()) == 2 and pipe.is_fifo()
    file.write_text("old")
    link.symlink_to(file)
    assert say("export", "-o", str(link))[0] == 0
    assert link.is_symlink() and len(file.read_text().splitlines()) == 2
    code, _, err = say("export", "-o", str(tmp_path))
    assert (code, err) == (1, f"seawall outbox export: cannot write {tmp_path}: Is a directory\n")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (None, "expected a store such as sqlite:///var/outbox.db, app:outbox, or a URL in $SEAWALL_OUTBOX_URL"),
        ("sqlite:///misspelled.db", "there is no file misspelled.db"),
        ("memory://", "live in the process that put them there"),
        ("ftp://host", "no URL of a store"),
        ("nothing:outbox", "there is no module 'nothing'"),
    ],
)
def test_a_target_that_is_none_is_told_and_nothing_is_made(say: Say, target: str | None, told: str) -> None:
    code, out, err = say("stats", target=target)
    assert (code, out) == (2, "") and told in err
    assert not Path("misspelled.db").exists()


def test_a_path_in_a_url_may_have_its_characters_written_out(say: Say, tmp_path: Path) -> None:
    assert say("stats", target=f"sqlite:///{tmp_path}/m%61ils.db")[0] == 0


def test_a_damaged_id_does_not_make_a_listing_endless(say: Say, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mails.db")) as db, db:
        db.execute("UPDATE work SET id = CAST(x'ff' AS TEXT) WHERE arrival = (SELECT max(arrival) FROM work)")
    assert len(say("export", "--state", "waiting", "--limit", "50")[1].splitlines()) < 10


def test_what_comes_after_the_target_is_refused_where_nothing_should(say: Say) -> None:
    assert (
        say("stats", "more")[2] == "seawall outbox stats: 'more' is too much: expected a store, and nothing after it\n"
    )


def test_a_store_that_fails_is_told_without_its_password(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise OSError("cannot reach valkey://bob:hush@host:6379")

    monkeypatch.setattr(outbox_records.Records, "stats", broken)
    code, _, err = say("stats")
    assert code == 1
    assert err == "seawall outbox stats: the store failed: OSError: cannot reach valkey://bob:***@host:6379\n"


def test_a_store_that_cannot_list_what_waits_says_so_and_can_be_emptied_all_the_same(
    say: Say, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RabbitMQ cannot."""
    page = outbox_records.Records._pages

    def blind(self: outbox_records.Records, state: str) -> Any:
        if state == "waiting":
            raise ConfigError("this store cannot list what waits")
        return page(self, state)

    monkeypatch.setattr(outbox_records.Records, "_pages", blind)
    assert say("list") == (2, "", "seawall outbox list: this store cannot list what waits\n")
    assert say("purge", "--state", "waiting", "--operation", "mail.send", "--yes")[0] == 2
    assert outbox.stats().waiting == 4
    assert say("purge", "--state", "waiting", "--yes") == (0, "4 waiting records forgotten.\n", "")
    assert outbox.stats().waiting == 0
    assert say("retry-dead")[0] == 0


# -- real terminals and pipes ------------------------------------------------------------------------------------------


def on_terminal(folder: Path, columns: int, answer: str, *args: str) -> tuple[int, str]:
    """What the command draws on a terminal of so many columns, when `answer` is typed."""
    master, slave = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SEAWALL_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "seawall", "outbox", *args],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"},
    )
    os.close(slave)
    os.write(master, answer.encode())
    drawn = b""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            data = os.read(master, 65_536)
        except OSError:
            break
        if not data:
            break
        drawn += data
    os.close(master)
    return process.wait(20), drawn.decode().replace("\r\n", "\n")


def test_a_table_fits_the_terminal(url: str, outbox: Outbox, tmp_path: Path) -> None:
    code, drawn = on_terminal(tmp_path, 80, "", "list", url, "--name", "mails", "--state", "dead")
    lines = drawn.splitlines()
    assert code == 0 and len(lines) == 3
    assert all(len(line) <= 80 for line in lines) and lines[1].endswith("…")
    assert [line.split()[0] for line in lines[1:]] == ids(outbox, "dead"), "ids are there to be copied"


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("\n", 2), ("no\n", 2)])
def test_who_would_destroy_is_asked(url: str, outbox: Outbox, tmp_path: Path, answer: str, left: int) -> None:
    code, drawn = on_terminal(tmp_path, 80, answer, "purge", url, "--name", "mails", "--state", "dead")
    assert "Forget 2 dead letters for ever? [y/N]" in drawn
    assert code == (1 if left else 0) and len(ids(outbox, "dead")) == left
    assert ("Nothing was forgotten." in drawn) is (left > 0)


def test_a_reader_that_leaves_ends_the_command_without_a_traceback(url: str, outbox: Outbox, tmp_path: Path) -> None:
    @outbox.operation("fill")
    def fill(text: str) -> None: ...

    for _ in range(30):
        outbox.put(fill, "x" * 10_000)
    command = f"{sys.executable} -m seawall outbox export {url} --name mails --state waiting | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1 and b"Traceback" not in done.stderr and len(done.stdout) == 10


def test_a_closed_input_is_nobody_to_ask_and_a_closed_output_takes_no_export(
    url: str, outbox: Outbox, tmp_path: Path
) -> None:
    def run(words: str) -> tuple[int, str]:
        command = f"{sys.executable} -m seawall outbox {words}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False, text=True)
        return done.returncode, done.stderr

    code, told = run(f"purge {url} --name mails --state dead <&-")
    assert code == 2 and "nobody to answer: say --yes" in told and len(ids(outbox, "dead")) == 2
    assert run(f"export {url} --name mails >&-") == (1, "seawall outbox export: standard output is closed\n")


@pytest.mark.parametrize(("where", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), (">/dev/full", 1)])
def test_streams_that_are_closed_or_full_are_no_reason_for_a_traceback(
    url: str, outbox: Outbox, tmp_path: Path, where: str, code: int
) -> None:
    command = f"{sys.executable} -m seawall outbox stats {url} --name mails {where}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == code and b"Traceback" not in done.stderr + done.stdout


def test_an_output_that_cannot_show_everything_shows_what_it_can(url: str, outbox: Outbox, tmp_path: Path) -> None:
    outbox.put(outbox.operations.get("mail.send").function, "größe")  # type: ignore[union-attr]
    outbox.worker().drain()
    key = ids(outbox, "dead")[-1]
    done = subprocess.run(
        [sys.executable, "-m", "seawall", "outbox", "show", url, key, "--name", "mails"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0 and b"gr\\xf6\\xdfe" in done.stdout
