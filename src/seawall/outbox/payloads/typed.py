"""`Typed`: arguments come back as the types their parameters are annotated with."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from seawall.outbox.payloads.codec import PLAIN, Arguments, Parameters, Unfit, Walk, dumped, loaded
from seawall.outbox.payloads.hints import hints_of, is_plain

if TYPE_CHECKING:
    from seawall.outbox.payloads.carriers import Carrier

__all__ = ["Typed"]

REMEDY = f"annotate the parameter with its type, or {PLAIN}"


class Typed:
    """JSON by the annotations of an operation: what is annotated as a dataclass, a `datetime`, a model comes back as
    one. The codec of an outbox that is given none.

    Parameters without annotation, or with one of plain JSON (`str`, `int`, `float`, `bool`, `None`, `Any`, lists, dicts
    and TypedDicts of them), are carried as by `Json`, which reads and writes the same bytes. All else is carried by
    msgspec (dataclasses, Structs, NamedTuples, `datetime`, `Decimal`, `UUID`, enums, tuples, sets, `bytes`, unions;
    install `seawall[msgspec]`), and by pydantic where models are (`seawall[pydantic]`, 2.11 or later), or types that
    msgspec does not know. Class names are never stored: types come from the annotations alone.

    When an operation is registered, a type that nobody carries is a `ConfigError`, and so is an annotation that
    cannot be resolved. `encode` reads what it wrote and compares: what would not come back the same (a subclass, NaN,
    a tuple for a list) is a `TypeError` or `ValueError` that names the place. `decode` is as
    strict about all but plain JSON, whose types it leaves to the function.

    >>> from dataclasses import dataclass
    >>> from datetime import datetime, timezone
    >>> from seawall.outbox import MemoryOutbox
    >>> @dataclass
    ... class Order:
    ...     number: int
    ...     tags: set[str]
    >>> outbox = MemoryOutbox()
    >>> @outbox.operation("order.ship")
    ... def ship(order: Order, at: datetime) -> None: print(order.number, sorted(order.tags), at.year)
    >>> _ = outbox.put(ship, Order(7, {"new", "gift"}), datetime(2026, 1, 1, tzinfo=timezone.utc))
    >>> outbox.worker().drain()
    7 ['gift', 'new'] 2026
    1
    """

    def check(self, parameters: Parameters) -> None:
        """Find a carrier for each parameter. Raises `ConfigError` if one has none."""
        carriers: dict[str, Carrier] = {}
        for name, hint in hints_of(parameters).items():
            if not is_plain(hint):
                from seawall.outbox.payloads.carriers import carrier_of  # noqa: PLC0415  # most operations need none

                carriers[name] = carrier_of(parameters.operation, name, hint)
        parameters.plan = carriers

    def encode(self, arguments: Arguments, parameters: Parameters, /) -> bytes:
        """The arguments as one JSON object. Raises `TypeError`, `ValueError` for what would not come back the same."""
        carriers = self._carriers_of(parameters)
        walk, fragments = Walk(REMEDY), list[bytes]()
        for name, value in arguments.items():
            try:
                if name in carriers:
                    fragment = carriers[name].write(value)
                else:
                    walk.check(value, 0)
                    fragment = dumped(value)
            except Unfit as refusal:
                raise refusal.at(parameters.operation, name) from None
            fragments.append(dumped(name) + b":" + fragment)
        payload = b"{" + b",".join(fragments) + b"}"
        if carriers:
            self._compare(arguments, self.decode(payload, parameters), carriers, parameters)
        return payload

    def _compare(self, given: Arguments, back: Arguments, carriers: dict[str, Carrier], parameters: Parameters) -> None:
        from seawall.outbox.payloads.same import Comparison  # noqa: PLC0415  # as above

        comparison = Comparison()
        for name in given:
            if name in carriers:
                try:
                    comparison.check(given[name], back[name])
                except Unfit as refusal:
                    raise refusal.at(parameters.operation, name) from None

    def decode(self, payload: bytes, parameters: Parameters, /) -> Arguments:
        """The arguments again. Raises `ValueError` for what is no JSON, or what a carrier cannot read as its type."""
        found = dict(loaded(payload, parameters.operation))
        for name, carrier in self._carriers_of(parameters).items():
            if name in found:
                try:
                    found[name] = carrier.read(dumped(found[name]))
                except Unfit as refusal:
                    raise refusal.at(parameters.operation, name) from None
        return found

    def _carriers_of(self, parameters: Parameters) -> dict[str, Carrier]:
        if parameters.plan is None:
            self.check(parameters)
        return cast("dict[str, Carrier]", parameters.plan)

    def __repr__(self) -> str:
        return "Typed()"
