"""What may be sent twice: idempotent methods, an Idempotency-Key, the sender's word; never a body that is gone."""

from __future__ import annotations

import pytest

from seawall.http.repeatable import may_be_sent_twice


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_idempotent_methods_may(method: str) -> None:
    assert may_be_sent_twice(method)


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "LOCK", "PURGE", "get", "Get", "GET ", "", "ＧＥＴ"])
def test_others_may_not(method: str) -> None:
    assert not may_be_sent_twice(method)


def test_an_idempotency_key_makes_a_post_repeatable() -> None:
    assert may_be_sent_twice("POST", ["order-7"])


@pytest.mark.parametrize("keys", [[], [""], [" \t"], ["a", "b"], ["a", "a"]])
def test_a_key_that_is_empty_or_stands_there_twice_does_not(keys: list[str]) -> None:
    assert not may_be_sent_twice("POST", keys)


def test_the_senders_word_stands_above_method_and_key() -> None:
    assert may_be_sent_twice("POST", idempotent=True)
    assert not may_be_sent_twice("GET", idempotent=False)
    assert not may_be_sent_twice("POST", ["order-7"], idempotent=False)


@pytest.mark.parametrize("idempotent", [None, True, False])
def test_a_body_that_cannot_be_read_again_is_never_sent_again(idempotent: bool | None) -> None:
    assert not may_be_sent_twice("PUT", ["key"], idempotent=idempotent, replayable=False)
