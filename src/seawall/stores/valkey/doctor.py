"""Looks at the servers of a store: what is right, what is wrong, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seawall.errors import BackendUnavailable
from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.leases import LeaseRules
from seawall.machines.limit import Limit
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket
from seawall.record import Record
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING
from seawall.stores.protocol import Ask
from seawall.stores.valkey.exchange import Exchange
from seawall.stores.valkey.faults import Outage, remedy
from seawall.stores.valkey.leases import ValkeyLeases
from seawall.stores.valkey.lines import BlockingLine
from seawall.stores.valkey.parcels import command
from seawall.stores.valkey.routes import SLOTS, slot_of
from seawall.stores.valkey.site import Address
from seawall.stores.valkey.standing import evicts
from seawall.stores.valkey.table import ValkeyTable
from seawall.units import show_seconds

if TYPE_CHECKING:
    from seawall.stores.valkey.core import Core

__all__ = ["RIGHTS", "Finding", "examine"]

PATIENCE_NS = 3_000_000_000
PINGS = 50
HOUR = 3_600_000_000_000
RIGHTS = (
    "+eval +evalsha +time +get +set +del +getrange +setrange +append +strlen +pexpire +zadd +zcard +zremrangebyscore "
    "+zrange +zrem +zscore"
)
"""What the user of a store must be allowed to do."""


class Finding(Record):
    """One thing that was looked at."""

    server: str
    about: str
    state: str
    """`"ok"`, `"warning"`, `"problem"`, or `"unknown"`: it could not be looked at."""
    said: str
    advice: str = ""


async def examine(core: Core) -> list[Finding]:
    """All findings; servers are asked one after the other, with more patience than limiters have."""
    patient = core.patient(PATIENCE_NS)
    patient.standing.looked = True  # it looks by itself
    exchange = Exchange(patient.site, patient.routes, patient.breakers, patient.pace, BlockingLine, patient.standing)
    try:
        return await _Examination(core, patient, exchange).run()
    finally:
        await exchange.close()
        await patient.close(is_async=False)


class _Examination:
    def __init__(self, core: Core, patient: Core, exchange: Exchange) -> None:
        self._core = core
        self._patient = patient
        self._exchange = exchange
        self._found: list[Finding] = []
        self._server = core.label
        self._skews: dict[str, int] = {}

    async def run(self) -> list[Finding]:
        routes = self._patient.routes
        if routes.must_ask():
            error = await self._exchange.find_the_way(clock.now_ns() + PATIENCE_NS)
            if error is not None:
                self._trouble("way", error)
                return self._found
            self._say("way", "ok", f"{routes.mode}: {len(routes.servers())} server(s)")
        for address in routes.servers():
            self._server = address[0] if address[1] < 0 else f"{address[0]}:{address[1]}"
            if await self._reach(address):
                await self._look_at(address)
        self._server = self._core.label
        if not self._patient.standing.nodes_seen and all(finding.state != "problem" for finding in self._found):
            advice = "let the user run ZADD, ZCARD and ZREMRANGEBYSCORE; until then, say how many with nodes="
            self._say("processes", "warning", "they cannot be counted", advice)
        if self._skews and max(self._skews.values()) - min(self._skews.values()) > 100_000_000:
            apart = show_seconds(max(self._skews.values()) - min(self._skews.values()))
            self._say("clocks", "warning", f"the servers are {apart} apart", "let them all follow one NTP source")
        return self._found

    def _say(self, about: str, state: str, said: str, advice: str = "") -> None:
        self._found.append(Finding(self._server, about, state, said, advice))

    def _trouble(self, about: str, error: BaseException) -> None:
        text = error.why if isinstance(error, Outage) else str(error).strip() or type(error).__name__
        default = "is it running, is the address right, does a firewall let you through?"
        self._say(about, "problem", text, remedy(error) or (default if isinstance(error, Outage) else ""))

    async def _ask(self, address: Address, *words: bytes) -> Any:
        (answer,) = await self._exchange.ask(address, [words], clock.now_ns() + PATIENCE_NS)
        return answer

    # -- one server --------------------------------------------------------------------------------------------------

    async def _reach(self, address: Address) -> bool:
        began = clock.now_ns()
        line = BlockingLine(address, self._patient.site.settings, tls=self._patient.site.tls)
        try:
            await line.open(began + PATIENCE_NS)
            took = clock.now_ns() - began
            await line.talk(command(b"PING"), 1, clock.now_ns() + PATIENCE_NS)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what was to be found out
            self._trouble("connection", self._exchange.meaning(error, address))
            return False
        await line.drop()
        most = self._core.pace.connect_ns
        said = f"connected and signed in within {show_seconds(took)}"
        if took > most:
            advice = f"connect_timeout is {show_seconds(most)}: give more, or come nearer"
            self._say("connection", "problem", said, advice)
        else:
            self._say("connection", "ok", said)
        return True

    async def _look_at(self, address: Address) -> None:
        facts = await self._facts(address)
        if facts is not None:
            self._version(facts)
            self._role(facts)
            self._memory(facts)
            self._log(facts)
        await self._cluster(address)
        await self._clock(address)
        await self._script(address)
        await self._latency(address)

    async def _facts(self, address: Address) -> dict[str, str] | None:
        answer = await self._ask(address, b"INFO")
        if isinstance(answer, Exception):
            self._say("setup", "unknown", f"INFO: {answer}", "let the user run INFO (+info) to have it looked at")
            return None
        lines = bytes(answer).decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _version(self, facts: dict[str, str]) -> None:
        name, version, least = "Valkey", facts.get("valkey_version", ""), 8
        if not version:
            name, version, least = "Redis", facts.get("redis_version", "0"), 7
        major = int(version.partition(".")[0]) if version.partition(".")[0].isdigit() else 0
        if major < least:
            self._say("version", "problem", f"{name} {version}", "Seawall needs Valkey 8 or Redis 7, or later")
        else:
            self._say("version", "ok", f"{name} {version}")

    def _role(self, facts: dict[str, str]) -> None:
        role = facts.get("role", "master")
        if role != "master":
            self._say("role", "problem", "it is a replica, and refuses to write", "give the address of its primary")
        else:
            self._say("role", "ok", f"primary, with {facts.get('connected_slaves', '0')} replica(s)")
        if facts.get("cluster_enabled") == "1" and self._patient.routes.mode != "cluster":
            advice = "write valkey+cluster://host in the URL"
            self._say("cluster", "problem", "it is part of a cluster, and not all keys are its own", advice)

    def _memory(self, facts: dict[str, str]) -> None:
        wrong = evicts("\n".join(f"{name}:{value}" for name, value in facts.items()).encode())
        most, used = int(facts.get("maxmemory", "0")), int(facts.get("used_memory", "0"))
        if wrong is not None:
            said, _, advice = wrong.partition(". ")
            self._say("memory", "problem", said, advice)
        elif most and used > 0.9 * most:
            advice = "give it more: when it is full every decision is an outage"
            self._say("memory", "warning", f"{used} of {most} bytes are in use", advice)
        else:
            self._say("memory", "ok", "no eviction of counters" if most else "without a bound, so nothing is evicted")

    def _log(self, facts: dict[str, str]) -> None:
        if facts.get("aof_enabled") == "1":
            self._say("log", "ok", "what it has is written to its log (appendonly yes)")
        else:
            said = "it keeps no log (appendonly no): enough for limits; an outbox would lose what is queued"
            self._say("log", "ok", said)

    async def _cluster(self, address: Address) -> None:
        if self._patient.routes.mode != "cluster":
            return
        answer = await self._ask(address, b"CLUSTER", b"INFO")
        if isinstance(answer, Exception):
            self._say("cluster", "unknown", str(answer), "let the user run CLUSTER INFO (+cluster|info)")
            return
        facts = dict(line.split(":", 1) for line in bytes(answer).decode().splitlines() if ":" in line)
        state, covered = facts.get("cluster_state", ""), facts.get("cluster_slots_ok", "")
        if state == "ok" and covered == str(SLOTS):
            self._say("cluster", "ok", f"all {SLOTS} slots are served by {facts.get('cluster_size')} servers")
        else:
            advice = "see CLUSTER NODES: keys of slots without a server are an outage"
            self._say("cluster", "problem", f"state {state!r}, {covered} of {SLOTS} slots are served", advice)

    async def _clock(self, address: Address) -> None:
        before = clock.wall_ns()
        answer = await self._ask(address, b"TIME")
        if isinstance(answer, Exception):
            self._say("clock", "unknown", f"TIME: {answer}")
            return
        seconds, micros = answer
        skew = int(seconds) * 1_000_000_000 + int(micros) * 1_000 - (before + clock.wall_ns()) // 2
        self._skews[self._server] = skew
        said = f"{show_seconds(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this machine"
        if abs(skew) > 1_000_000_000:
            advice = "decisions follow the server's clock alone, but windows of the calendar are those of its calendar"
            self._say("clock", "warning", said, advice)
        else:
            self._say("clock", "ok", said)

    async def _script(self, address: Address) -> None:
        """Every step that a limiter may take, on keys that are gone afterwards."""
        limits: dict[str, Limit[Any]] = {
            "bucket": TokenBucket(10, HOUR, 10),
            "fixed": FixedWindow(10, HOUR),
            "sliding": SlidingWindow(10, HOUR, 10),
            "log": SlidingLog(10, HOUR),
        }
        key = self._key_on(address)
        try:
            table = ValkeyTable(self._patient, "seawall doctor", limits)
            ask = Ask(key, dict.fromkeys(limits, 1))
            for _ in range(2):
                await self._step(table.take(BLOCKING, [ask]))
                _, held = await self._step(table.hold(BLOCKING, ask, 1_000_000_000))
                await self._step(table.settle(BLOCKING, held, ask.costs))
            await self._step(table.reset(BLOCKING, key))
            slots = ValkeyTable(self._patient, "seawall doctor slots", {"slots": LeakyBucket(1, HOUR, 3)})
            _, _, slot = await self._step(slots.next_slot(BLOCKING, Ask(key, {"slots": 1}), None))
            await self._step(slots.free_slot(BLOCKING, slot))
            await self._step(slots.reset(BLOCKING, key))
        except BackendUnavailable as error:
            user = self._patient.site.settings.get("username") or "default"
            more = " +cluster|slots +asking" if self._patient.routes.mode == "cluster" else ""
            rule = f"ACL SETUSER {user} ~{self._core.prefix.decode()}:* {RIGHTS}{more}"
            self._say("script", "problem", str(error), f"if it is for want of rights: {rule}")
        else:
            self._say("script", "ok", "loads, runs, and may do all it has to")
            await self._lease(key)

    async def _lease(self, key: str) -> None:
        table = ValkeyLeases(self._patient, "seawall doctor", LeaseRules(1, 1_000_000_000))
        try:
            _, lease = await self._step(table.enter(BLOCKING, key))
            await self._step(table.renew(BLOCKING, lease))
            await self._step(table.release(BLOCKING, lease))
            await self._step(table.look(BLOCKING, key))
        except BackendUnavailable as error:
            advice = (
                "a ConcurrencyLimit needs them; let the user run ZADD, ZCARD, ZRANGE, ZREM, ZREMRANGEBYSCORE, ZSCORE"
            )
            self._say("leases", "warning", str(error), advice)

    async def _step(self, step: Any) -> Any:
        before = dict(self._patient.standing.decided)
        result = await step
        if dict(self._patient.standing.decided) != before:
            raise BackendUnavailable("the script was not answered")
        return result

    def _key_on(self, address: Address) -> str:
        """A key that this server has."""
        routes = self._patient.routes
        keys = (f"doctor {number}" for number in range(100_000))
        return next(key for key in keys if routes.address_of(slot_of(self._patient.subject(key))) == address)

    async def _latency(self, address: Address) -> None:
        taken: list[int] = []
        for _ in range(PINGS):
            began = clock.now_ns()
            await self._ask(address, b"PING")
            taken.append(clock.now_ns() - began)
        taken.sort()
        median, slow, most = taken[PINGS // 2], taken[-1], self._core.pace.call_ns
        said = f"a trip takes {show_seconds(median)}, the slowest of {PINGS} took {show_seconds(slow)}"
        advice = f"timeout is {show_seconds(most)}: give more, or come nearer"
        if median > most:
            self._say("latency", "problem", said, advice)
        elif slow > most // 2:
            self._say("latency", "warning", said, advice)
        else:
            self._say("latency", "ok", said)
