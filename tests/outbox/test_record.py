"""Records are small values: ids that sort by time, and errors cut to what can be kept for each of 100,000."""

from __future__ import annotations

import uuid

import pytest

from seawall.outbox.record import MOST_ERROR_TEXT, Queued, error_text, fresh_id
from seawall.runtime import clock
from seawall.testing import VirtualClock
from tests.outbox.benches import make_work


def test_ids_are_of_the_form_of_uuid_7_and_sort_by_time() -> None:
    with VirtualClock() as time:
        ids: list[str] = []
        for _ in range(200):
            ids.append(fresh_id())
            time.advance("2ms")
    assert ids == sorted(ids)
    assert len(set(ids)) == 200
    found = uuid.UUID(ids[0])
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert int(ids[0][:12], 16) == clock.EPOCH_NS // 1_000_000


def test_ids_of_one_instant_differ() -> None:
    with VirtualClock():
        assert len({fresh_id() for _ in range(5_000)}) == 5_000


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionError("refused"), "ConnectionError: refused"),
        (KeyError("a"), "KeyError: 'a'"),
        (Unspeakable(), "Unspeakable (its text cannot be read)"),
        (ValueError("nul \0 and \ud800"), "ValueError: nul ? and ?"),
        (ExceptionGroup("both", [ValueError("a"), OSError("b")]), "ExceptionGroup: both (2 sub-exceptions)"),
    ],
)
def test_an_error_is_kept_as_its_kind_and_message(error: Exception, text: str) -> None:
    assert error_text(error) == text


def test_the_text_of_an_error_is_bounded() -> None:
    text = error_text(ValueError("x" * 1_000_000))
    assert len(text) == MOST_ERROR_TEXT
    assert text.endswith("x...")


def test_queued_is_true_and_a_value() -> None:
    queued = Queued(id="1", operation="audit.write", due=1.5, durable=False)
    assert queued and queued == Queued(id="1", operation="audit.write", due=1.5, durable=False)
    assert repr(queued) == "Queued(id='1', operation='audit.write', due=1.5, durable=False)"


def test_work_is_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        make_work().attempts = 5  # type: ignore[misc]
