"""Into the database, in threads or in asyncio: one short transaction for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import sqlalchemy as sa

from seawall.errors import ConfigError
from seawall.units import given

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Door", "door_to"]

T = TypeVar("T")


class Door(Protocol):
    """Runs functions of a connection, each in a transaction of its own."""

    async def run(self, step: Callable[[sa.Connection], T], /) -> T: ...

    @property
    def dialect(self) -> str: ...


class _BlockingDoor:
    def __init__(self, engine: sa.Engine) -> None:
        self.dialect = engine.dialect.name
        self._engine = engine.execution_options(**_options(self.dialect))

    async def run(self, step: Callable[[sa.Connection], T], /) -> T:
        with self._engine.begin() as connection:
            return step(connection)


class _AsyncDoor:
    def __init__(self, engine: AsyncEngine) -> None:
        self.dialect = engine.dialect.name
        self._engine = engine.execution_options(**_options(self.dialect))

    async def run(self, step: Callable[[sa.Connection], T], /) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(step)


def _options(dialect: str) -> dict[str, Any]:
    """Steps are right under READ COMMITTED; under more they would fail, or make others fail, for nothing."""
    return {"isolation_level": "READ COMMITTED"} if dialect in ("postgresql", "mysql", "mariadb") else {}


def door_to(engine: object, *, is_async: bool) -> Door:
    """The door of an engine. Raises `ConfigError` if it is none, or of the other kind."""
    if isinstance(engine, sa.Engine):
        if is_async:
            raise ConfigError("an Engine would block the loop: give an AsyncEngine, or use the synchronous form")
        return _BlockingDoor(engine)
    # Told by what only an AsyncEngine has: its module needs greenlet, which synchronous programs need not have.
    if isinstance(getattr(engine, "sync_engine", None), sa.Engine):
        if not is_async:
            raise ConfigError("an AsyncEngine needs a loop: give an Engine, or use the asynchronous form")
        return _AsyncDoor(cast("Any", engine))
    raise ConfigError(f"{given('engine', engine)}: expected an Engine or an AsyncEngine")
