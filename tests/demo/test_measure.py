"""The figures of the demo are what their names say."""

import os
import subprocess
import sys

import pytest

from seawall.demo import ledger
from seawall.demo.ledger import Ledger
from seawall.demo.measure import Tally, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.50, 50.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_a_tally_counts_each_user_once() -> None:
    tally = Tally(arrived=4, sent={"inventory": 3, "audit": 2})
    tally.end("served", 0.010)
    tally.end("degraded", 0.020)
    tally.end("error", 0.030, "inventory: not reached")
    assert (tally.served, tally.degraded, tally.errors, tally.waiting) == (1, 1, 1, 1)
    told = tally.as_json()
    assert (told["p50_ms"], told["p99_ms"]) == (20.0, 30.0)
    assert told["attempts"] == 5
    assert told["errors_by_reason"] == {"inventory: not reached": 1}


def test_errors_are_the_fault_of_a_service_and_some_are_needless() -> None:
    tally = Tally()
    for reason in ("inventory: not reached", "inventory: answered 500", "audit: not reached", "recommendations: x"):
        tally.end("error", 0.1, reason)
    assert tally.culprits == {"inventory": 2, "audit": 1, "recommendations": 1}
    assert tally.needless == 2


def test_charges_are_compared_with_what_users_were_shown_and_with_the_audit() -> None:
    tally = Tally(charged={"a-1", "a-2", "a-3"}, audited={"a-1"}, orders_lost={"a-2", "a-9"})
    assert tally.charged_in_vain == 1
    assert tally.unaudited == 2


def test_a_ledger_holds_what_several_processes_wrote_and_counts_repeats_once() -> None:
    books = Ledger()
    try:
        elsewhere = "import sys; from seawall.demo import ledger; ledger.write(int(sys.argv[1]), 'audited', 'killed-7')"
        command = [sys.executable, "-c", elsewhere, str(books.fileno)]
        subprocess.run(command, pass_fds=(books.fileno,), check=True, timeout=30)
        for entry, order in (("charged", "killed-7"), ("charged", "killed-7"), ("audited", "slow-1")):
            ledger.write(books.fileno, entry, order)
        assert books.orders("charged", "killed-") == {"killed-7"}
        assert books.orders("audited", "killed-") == {"killed-7"}
        assert books.orders("audited", "slow-") == {"slow-1"}
        assert books.orders("charged", "slow-") == set()
    finally:
        books.close()


def test_a_ledger_is_read_to_its_end() -> None:
    books = Ledger()
    try:
        os.write(books.fileno, b"".join(b"charged big-%d\n" % number for number in range(20_000)))
        assert len(books.orders("charged", "big-")) == 20_000
    finally:
        books.close()


@pytest.mark.parametrize("order", ["", "a b", "a\ncharged x", "x" * 65, "ä", "../x"])
def test_what_could_forge_a_line_of_the_ledger_is_no_order(order: str) -> None:
    assert not ledger.ORDER.fullmatch(order)
