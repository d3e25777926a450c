"""How parcels get to the server that has their keys, and their answers back: one text for threads and for tasks.

    who        the server by the slot of the keys; where that is not known, or is in doubt, guides are asked first
    breaker    a server that does not answer is left alone for a while
    one call   for all parcels that go to one server, up to 256 in each; many calls are sent at once and read in turn
    NOSCRIPT   the same call again, with the text of the script: nothing was done yet
    MOVED, ASK the parcel again, to the server that was named: nothing was done yet
    the rest   an outage, or something that is wrong; never sent again: it may have been done

Every wait ends: connecting within `connect_ns`, a call within `call_ns`, all of it at `until_ns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from seawall.machines.verdict import Verdict
from seawall.runtime import clock
from seawall.stores.valkey.breakers import Breakers
from seawall.stores.valkey.faults import LEFT_ALONE, Outage, Redirect, code_of, explained, is_outage, redirect_of
from seawall.stores.valkey.parcels import MOST_UNITS, Parcel, call_of, command, deliver
from seawall.stores.valkey.routes import Routes
from seawall.stores.valkey.script import script
from seawall.stores.valkey.site import Address, Site
from seawall.stores.valkey.standing import Standing, evicts

__all__ = ["Exchange", "Line", "Pace"]

MOST_HOPS = 4
MOST_IDLE = 8
"""Connections to one server that are kept open while nobody uses them."""


class Line(Protocol):
    """A connection."""

    async def open(self, until_ns: int) -> None: ...
    async def is_fresh(self) -> bool: ...
    async def talk(self, data: bytes, answers: int, until_ns: int) -> list[Any]: ...
    async def drop(self) -> None: ...


class Pace:
    """How long things may take, in nanoseconds."""

    __slots__ = ("call_ns", "connect_ns")

    def __init__(self, connect_ns: int, call_ns: int) -> None:
        self.connect_ns = connect_ns
        self.call_ns = call_ns

    @property
    def whole_ns(self) -> int:
        """For a decision, whatever happens."""
        return self.connect_ns + self.call_ns


class Exchange:
    """The connections of one client, and how they are used."""

    def __init__(
        self,
        site: Site,
        routes: Routes,
        breakers: Breakers,
        pace: Pace,
        line: Callable[..., Line],
        standing: Standing,
    ) -> None:
        self._site = site
        self._routes = routes
        self._breakers = breakers
        self._pace = pace
        self._line = line
        self._standing = standing
        self._idle: dict[Address, list[Line]] = {}
        self._closed = False

    async def serve(self, parcels: Sequence[Parcel], until_ns: int) -> None:
        """See to it that each parcel has an answer or an error."""
        try:
            await self._serve(parcels, until_ns)
        except Exception as error:  # noqa: BLE001  # a fault of ours must not pass for an outage, which may let all through
            self._fail(parcels, explained(self._site.label, error))

    async def _serve(self, parcels: Sequence[Parcel], until_ns: int) -> None:
        todo: list[tuple[Parcel, Redirect | None]] = [(parcel, None) for parcel in parcels]
        for _ in range(MOST_HOPS):
            if self._routes.must_ask():
                error = await self.find_the_way(until_ns)
                if error is not None and (not isinstance(error, Outage) or not self._routes.knows):
                    self._fail([parcel for parcel, _ in todo], error)
                    return
            todo = await self._round(todo, until_ns)
            if not todo:
                return
        self._fail([parcel for parcel, _ in todo], Outage("sent from one server to another too often"))

    async def ask(self, address: Address, words: Iterable[tuple[bytes, ...]], until_ns: int) -> list[Any]:
        """The answers of a server to plain commands. Raises what goes wrong on the way."""
        return await self._ask(address, words, until_ns, self._site.settings)

    async def close(self) -> None:
        """Close what is open."""
        self._closed = True
        idle, self._idle = self._idle, {}
        for lines in idle.values():
            for line in lines:
                await line.drop()

    # -- one round ---------------------------------------------------------------------------------------------------

    async def _round(self, todo: list[tuple[Parcel, Redirect | None]], until_ns: int) -> list[Any]:
        """Send each parcel to its server; returns those that have to go elsewhere."""
        groups: dict[tuple[Address, bool], list[Parcel]] = {}
        lost: list[Parcel] = []
        for parcel, redirect in todo:
            address = self._routes.address_of(parcel.slot) if redirect is None else redirect.address
            if address is None:
                lost.append(parcel)
            else:
                groups.setdefault((address, redirect is not None and redirect.asking), []).append(parcel)
        if lost:
            self._fail(lost, Outage(f"{self._site.label}: nobody knows which server has the keys"))
        again: list[tuple[Parcel, Redirect | None]] = []
        for (address, asking), parcels in groups.items():
            again += await self._send(address, parcels, until_ns, asking=asking)
        return again

    async def _send(
        self, address: Address, parcels: list[Parcel], until_ns: int, *, asking: bool
    ) -> list[tuple[Parcel, Redirect | None]]:
        permit = self._breakers.admit(address)
        if permit is None:
            self._routes.doubt()
            self._fail(parcels, Outage(LEFT_ALONE))
            return []
        verdict = Verdict.IGNORE
        try:
            again = await self._calls(address, parcels, until_ns, asking=asking)
            verdict = Verdict.OK
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told to those who wait
            failed, verdict = self.meaning(error, address), Verdict.OK
            if isinstance(failed, Outage):
                self._routes.doubt()
                verdict = Verdict.FAIL
            self._fail(parcels, failed)
            return []
        finally:
            self._breakers.settle(address, permit, verdict)
        return again

    async def _calls(
        self, address: Address, parcels: list[Parcel], until_ns: int, *, asking: bool
    ) -> list[tuple[Parcel, Redirect | None]]:
        """All calls for one server, on one connection. Raises what concerns all of them."""
        line = await self._open(address, until_ns, self._site.settings)
        try:
            again = await self._talk(line, address, list(self._loads(parcels)), until_ns, asking=asking)
        except BaseException:
            await line.drop()
            raise
        await self._keep(address, line)
        return again

    async def _talk(
        self, line: Line, address: Address, loads: list[list[Parcel]], until_ns: int, *, asking: bool
    ) -> list[tuple[Parcel, Redirect | None]]:
        again: list[tuple[Parcel, Redirect | None]] = []
        with_text = False
        while loads:
            before = ASKING if asking else b""
            data = b"".join([before + call_of(script(), load, with_text=with_text) for load in loads])
            until = min(until_ns, clock.now_ns() + self._pace.call_ns)
            answers = await line.talk(data, len(loads) * (2 if asking else 1), until)
            unknown: list[list[Parcel]] = []
            for load, answer in zip(loads, answers[1::2] if asking else answers, strict=True):
                if not isinstance(answer, Exception):
                    self._deliver(answer, load)
                elif code_of(answer) == "NOSCRIPT" and not with_text:
                    unknown.append(load)
                elif (redirect := self._redirected(answer, address)) is not None:
                    again += [(parcel, redirect) for parcel in load]
                else:
                    raise answer
            loads, with_text = unknown, True
        await self._look_around(line, until_ns)
        return again

    async def _look_around(self, line: Line, until_ns: int) -> None:
        """Once in a process: whether the server might throw states away. It is no matter if it does not tell."""
        if self._standing.looked:
            return
        self._standing.looked = True
        with suppress(Exception):
            until = min(until_ns, clock.now_ns() + self._pace.call_ns)
            (memory,) = await line.talk(command(b"INFO", b"memory"), 1, until)
            self._standing.doubt = evicts(memory)

    def _loads(self, parcels: list[Parcel]) -> Iterable[list[Parcel]]:
        """What goes into one call: keys of one slot on a cluster, at most so many anywhere."""
        if self._routes.mode != "cluster":
            groups = [parcels]
        else:
            by_slot: dict[int, list[Parcel]] = {}
            for parcel in parcels:
                by_slot.setdefault(parcel.slot, []).append(parcel)
            groups = list(by_slot.values())
        for group in groups:
            for first in range(0, len(group), MOST_UNITS):
                yield group[first : first + MOST_UNITS]

    def _deliver(self, answer: Any, load: list[Parcel]) -> None:
        for parcel in deliver(bytes(answer), load):
            text = parcel.reply.decode("utf-8", "replace")
            parcel.settle(Outage(text) if is_outage(text) else explained(self._site.label, text))
        self._standing.heard()
        for parcel in load:
            parcel.settle()

    def _redirected(self, answer: Exception, address: Address) -> Redirect | None:
        redirect = redirect_of(answer, address) if self._routes.mode == "cluster" else None
        if redirect is not None and not redirect.asking:
            self._routes.moved(redirect.slot, redirect.address)
        return redirect

    def meaning(self, error: Exception, address: Address) -> Exception:
        """An outage, or what a caller is told of what is wrong."""
        if is_outage(error):
            return Outage(f"{_name(address)}: {str(error).strip() or type(error).__name__}", error)
        return explained(self._site.label, error)

    def _fail(self, parcels: Iterable[Parcel], error: Exception) -> None:
        for parcel in parcels:
            parcel.settle(error)

    # -- connections -------------------------------------------------------------------------------------------------

    async def _open(self, address: Address, until_ns: int, settings: dict[str, Any]) -> Line:
        """One that stands, or a new one."""
        idle = self._idle.get(address)
        while idle:
            try:
                line = idle.pop()
            except IndexError:  # another thread was quicker
                break
            if await line.is_fresh():
                return line
            await line.drop()
        line = self._line(address, settings, tls=self._site.tls)
        await line.open(min(until_ns, clock.now_ns() + self._pace.connect_ns))
        return line

    async def _keep(self, address: Address, line: Line) -> None:
        idle = self._idle.setdefault(address, [])
        if self._closed or len(idle) >= MOST_IDLE:
            await line.drop()
        else:
            idle.append(line)

    async def _part_from_strangers(self) -> None:
        """Close what leads to servers that are none any more."""
        known = {*self._routes.servers(), *self._site.addresses}
        for address in [address for address in self._idle if address not in known]:
            for line in self._idle.pop(address):
                await line.drop()

    async def _ask(
        self, address: Address, words: Iterable[tuple[bytes, ...]], until_ns: int, settings: dict[str, Any]
    ) -> list[Any]:
        commands = [command(*each) for each in words]
        line = await self._open(address, until_ns, settings)
        until = min(until_ns, clock.now_ns() + self._pace.call_ns)
        answers = await line.talk(b"".join(commands), len(commands), until)
        await self._keep(address, line)
        return answers

    async def find_the_way(self, until_ns: int) -> Exception | None:
        """Ask guides until one answers; returns the error of the last if none does."""
        routes = self._routes
        settings = self._site.sentinel_settings if routes.mode == "sentinel" else self._site.settings
        failed: Exception | None = Outage(f"{self._site.label}: there is nobody to ask for the way")
        for guide in routes.guides():
            if clock.now_ns() >= until_ns:
                break
            try:
                (answer,) = await self._ask(guide, [routes.question], until_ns, settings)
            except Exception as error:  # noqa: BLE001  # the next one may know
                failed = self.meaning(error, guide)
            else:
                if isinstance(answer, Exception):
                    failed = self.meaning(answer, guide)
                elif routes.learn(answer, guide):
                    await self._part_from_strangers()
                    return None
                else:
                    failed = Outage(f"{_name(guide)}: does not know {routes.service or 'the slots'}")
            routes.unhelpful(guide)
        return failed


ASKING = command(b"ASKING")


def _name(address: Address) -> str:
    return address[0] if address[1] < 0 else f"{address[0]}:{address[1]}"
