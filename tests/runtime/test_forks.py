"""In a forked child everything begins anew, also when one thing cannot."""

from __future__ import annotations

import pytest

from seawall.runtime import forks


class Thing:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.renewed = 0

    def renew_after_fork(self) -> None:
        self.renewed += 1
        if self.error is not None:
            raise self.error


def test_what_cannot_begin_anew_does_not_keep_the_others_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    things = [Thing(OSError()), Thing(), Thing(ValueError()), Thing()]
    monkeypatch.setattr(forks, "_known", things)
    with pytest.raises((OSError, ValueError)):
        forks._renew_all()
    assert [thing.renewed for thing in things] == [1, 1, 1, 1]


def test_it_is_known_for_as_long_as_it_lives() -> None:
    thing = Thing()
    forks.renew_after_fork(thing)
    assert thing in forks._known
    before = len(forks._known)
    del thing
    assert len(forks._known) < before
