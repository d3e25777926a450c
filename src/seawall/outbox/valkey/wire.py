"""How a step gets to the server that keeps the outbox, and its answer back: one text for threads and for tasks.

    connections   at most so many; whoever comes when all are in use waits for one, as long as his time lasts
    one step      one call of the script, and on the same connection what waits until it is safe (`WAIT`, `WAITAOF`)
    NOSCRIPT      the same call again with the text: nothing was done yet
    MOVED, ASK    the call again at the server that was named: nothing was done yet
    the rest      `BackendUnavailable`; never sent again: it may have been done

Every wait ends: connecting within `connect_ns`, all of it at the end of the step. A connection that was cut short is
closed and never used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from seawall.errors import BackendUnavailable
from seawall.runtime import clock
from seawall.runtime.protocol import Parker, Runtime
from seawall.runtime.section import Section
from seawall.stores.valkey.exchange import ASKING, Line
from seawall.stores.valkey.faults import Redirect, code_of, redirect_of, remedy
from seawall.stores.valkey.parcels import command
from seawall.stores.valkey.routes import Routes, slot_of
from seawall.stores.valkey.site import Address, Site

__all__ = ["Wire"]

MOST_HOPS = 4
MOST_WAITING = 65_536
TEXT = files("seawall.outbox").joinpath("valkey", "outbox.lua").read_bytes()
SHA = sha1(TEXT, usedforsecurity=False).hexdigest().encode()


class Wire:
    """The connections of one runtime."""

    def __init__(
        self,
        site: Site,
        routes: Routes,
        line: Callable[..., Line],
        runtime: Runtime,
        *,
        connect_ns: int,
        step_ns: int,
        most: int,
        safe: Sequence[tuple[tuple[bytes, ...], int]],
    ) -> None:
        self._site = site
        self._routes = routes
        self._line = line
        self._runtime = runtime
        self._connect_ns = connect_ns
        self._step_ns = step_ns
        self._safe = safe
        """Commands that wait until the step is safe, and the least that they have to answer."""
        self._knows: set[Address] = set()
        """Servers that have the script, as far as is known."""
        self._lock = Section()
        self._room = most
        self._idle: list[tuple[Address, Line]] = []
        self._waiting: deque[tuple[Parker, list[bool]]] = deque()
        self._keeper: AsyncGenerator[None, None] | None = None

    async def step(self, prefix: bytes, tag: bytes, words: Sequence[bytes], *, safe: bool = False) -> Any:
        """The answer of the script to one step. Raises `BackendUnavailable` in time, whatever the server does."""
        until_ns = clock.now_ns() + self._step_ns
        if self._keeper is None and self._runtime.is_async:
            self._keeper = self._keep_open()
            await anext(self._keeper)
        await self._take_place(until_ns)
        try:
            return await self._step(slot_of(tag), [b"1", prefix, *words], until_ns, safe=safe)
        except BackendUnavailable:
            raise
        except Exception as error:  # whatever broke: the caller hears it as one kind of error
            self._routes.doubt()
            raise self._unavailable(error) from error
        finally:
            self._give_place()

    async def close(self) -> None:
        """Close what is open; whoever comes afterwards opens anew."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, line in idle:
            await line.drop()

    async def _keep_open(self) -> AsyncGenerator[None, None]:
        # A loop that shuts down closes the asynchronous generators that were begun in it: the one moment to close
        # connections in peace, without a word from the user.
        try:
            yield
        finally:
            await self.close()

    def _unavailable(self, error: BaseException | str) -> BackendUnavailable:
        advice = remedy(error)
        text = str(error).strip() or type(error).__name__
        return BackendUnavailable(f"{self._site.label}: {text}{f' ({advice})' if advice else ''}")

    # -- places ------------------------------------------------------------------------------------------------------

    async def _take_place(self, until_ns: int) -> None:
        with self._lock:
            if self._room > 0:
                self._room -= 1
                return
            if len(self._waiting) >= MOST_WAITING:
                raise self._unavailable(f"{MOST_WAITING} steps wait for a connection already")
            parker, given = self._runtime.parker(), [False]
            entry = (parker, given)
            self._waiting.append(entry)
        try:
            while not given[0] and (left := until_ns - clock.now_ns()) > 0:
                await parker.park(left)
        except BaseException:
            self._leave(entry)
            if given[0]:
                self._give_place()
            raise
        self._leave(entry)
        if not given[0]:
            raise self._unavailable("no connection was free in time")

    def _leave(self, entry: tuple[Parker, list[bool]]) -> None:
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _give_place(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._room += 1
                    return
                parker, given = self._waiting.popleft()
                given[0] = True
            if parker.unpark():
                return

    # -- there and back ----------------------------------------------------------------------------------------------

    async def _step(self, slot: int, words: Sequence[bytes], until_ns: int, *, safe: bool) -> Any:
        redirect: Redirect | None = None
        for _ in range(MOST_HOPS):
            if self._routes.must_ask():
                await self._find_the_way(until_ns)
            address = self._routes.address_of(slot) if redirect is None else redirect.address
            if address is None:
                raise self._unavailable("nobody knows which server has the keys")
            asking = redirect is not None and redirect.asking
            answer = await self._call(address, words, until_ns, asking=asking, safe=safe)
            redirect = redirect_of(answer, address) if isinstance(answer, Exception) else None
            if redirect is None or self._routes.mode != "cluster":
                if isinstance(answer, Exception):
                    if code_of(answer) == "READONLY":
                        self._routes.doubt()
                    raise self._unavailable(answer) from answer
                return answer
            if not redirect.asking:
                self._routes.moved(redirect.slot, redirect.address)
        raise self._unavailable("sent from one server to another too often")

    async def _call(self, address: Address, words: Sequence[bytes], until_ns: int, *, asking: bool, safe: bool) -> Any:
        line = await self._open(address, until_ns, self._site.settings)
        try:
            # A server that is new to us is given the text at once: to ask for it costs a trip, and `WAIT` twice.
            first = command(b"EVALSHA", SHA, *words) if address in self._knows else command(b"EVAL", TEXT, *words)
            answer = await self._talk(line, first, until_ns, asking=asking, safe=safe)
            self._knows.add(address)
            if isinstance(answer, Exception) and code_of(answer) == "NOSCRIPT":
                answer = await self._talk(line, command(b"EVAL", TEXT, *words), until_ns, asking=asking, safe=safe)
        except BaseException:
            await line.drop()
            raise
        await self._keep(address, line)
        return answer

    async def _talk(self, line: Line, call: bytes, until_ns: int, *, asking: bool, safe: bool) -> Any:
        waits = self._safe if safe else ()
        data = b"".join([ASKING if asking else b"", call, *(command(*words) for words, _ in waits)])
        answers = await line.talk(data, asking + 1 + len(waits), until_ns)
        answer, reached = answers[asking], answers[asking + 1 :]
        if isinstance(answer, Exception):
            return answer
        for (words, least), told in zip(waits, reached, strict=True):
            name = words[0].decode()
            if isinstance(told, Exception):
                raise self._unavailable(f"{name}: {told}") from told
            if (told[0] if isinstance(told, list) else told) < least:
                raise self._unavailable(f"{name} was not reached in time: the step may be lost in a crash, or not")
        return answer

    async def _open(self, address: Address, until_ns: int, settings: dict[str, Any]) -> Line:
        while True:
            with self._lock:
                found = next((pair for pair in reversed(self._idle) if pair[0] == address), None)
                if found is not None:
                    self._idle.remove(found)
            if found is None:
                break
            if await found[1].is_fresh():
                return found[1]
            await found[1].drop()
        line = self._line(address, settings, tls=self._site.tls)
        await line.open(min(until_ns, clock.now_ns() + self._connect_ns))
        return line

    async def _keep(self, address: Address, line: Line) -> None:
        known = self._routes.servers()
        with self._lock:
            keep = address in known or not known
            if keep:
                self._idle.append((address, line))
        if not keep:
            await line.drop()

    async def _find_the_way(self, until_ns: int) -> None:
        """Ask guides until one answers. Raises what the last one raised, if nothing is known from before."""
        routes = self._routes
        settings = self._site.sentinel_settings if routes.mode == "sentinel" else self._site.settings
        failed: Exception | None = None
        for guide in routes.guides():
            try:
                line = await self._open(guide, until_ns, settings)
                (answer,) = await line.talk(command(*routes.question), 1, until_ns)
                await line.drop()
            except Exception as error:  # noqa: BLE001  # the next one may know
                failed = error
            else:
                if not isinstance(answer, Exception) and routes.learn(answer, guide):
                    return
                failed = answer if isinstance(answer, Exception) else None
            routes.unhelpful(guide)
        if not routes.knows:
            raise self._unavailable(failed or "there is nobody to ask for the way") from failed
