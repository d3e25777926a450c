"""Retry, breaker and bulkhead together, as a user of each peer puts them together; with a timeout in async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from . import peers
from .settings import LIMIT, SECONDS

AsyncFunction = Callable[[], Any]


def pyresilience_stack(*, window: int = 0, timeout: bool = False) -> peers.Wrap:
    """One decorator with the same patterns; pyresilience puts them in its own fixed order."""
    from pyresilience import resilient

    return resilient(
        retry=peers.pyresilience_retry_config(),
        circuit_breaker=peers.pyresilience_breaker_config(window),
        bulkhead=peers.pyresilience_bulkhead_config(),
        timeout=peers.pyresilience_timeout_config() if timeout else None,
    )


def hyx_stack(*, timeout: bool = False) -> peers.Wrap:
    """Nested decorators; hyx is async only."""
    layers = [peers.hyx_retry(), peers.hyx_breaker(), peers.hyx_bulkhead()]
    if timeout:
        layers.append(peers.hyx_timeout())

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        for layer in reversed(layers):
            function = layer(function)
        return function

    return wrap


def tenacity_pybreaker_semaphore(function: Callable[[], Any]) -> Callable[..., Any]:
    """The common stack of sync code. The semaphore waits where Seawall's bulkhead refuses; it never has to here."""
    slots = threading.Semaphore(LIMIT)

    @peers.tenacity_retry()
    @peers.pybreaker_breaker()
    def guarded() -> Any:
        with slots:
            return function()

    return guarded


def tenacity_aiobreaker_semaphore(function: AsyncFunction, *, timeout: bool = False) -> Callable[..., Any]:
    """The common stack of async code; pybreaker cannot be used, for it ignores coroutines."""
    slots = asyncio.Semaphore(LIMIT)

    async def bounded() -> Any:
        async with slots:
            return await function()

    async def timed() -> Any:
        async with slots, asyncio.timeout(SECONDS):
            return await function()

    return peers.tenacity_retry()(peers.aiobreaker_breaker()(timed if timeout else bounded))


def semaphore(function: Callable[[], Any]) -> Callable[[], Any]:
    """The standard library's bulkhead for threads; it waits instead of refusing."""
    slots = threading.Semaphore(LIMIT)

    def bounded() -> Any:
        with slots:
            return function()

    return bounded


def async_semaphore(function: AsyncFunction) -> AsyncFunction:
    """The standard library's bulkhead for tasks; it waits instead of refusing."""
    slots = asyncio.Semaphore(LIMIT)

    async def bounded() -> Any:
        async with slots:
            return await function()

    return bounded


def async_timeout(function: AsyncFunction) -> AsyncFunction:
    """The standard library's timeout for a block."""

    async def timed() -> Any:
        async with asyncio.timeout(SECONDS):
            return await function()

    return timed


def async_wait_for(function: AsyncFunction) -> AsyncFunction:
    """The standard library's timeout for an awaitable; a task per call before Python 3.12."""

    async def timed() -> Any:
        return await asyncio.wait_for(function(), SECONDS)

    return timed
