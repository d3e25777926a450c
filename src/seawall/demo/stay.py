"""Where everything is in a shop that stays open, and what to try there."""

from collections.abc import Iterator

from seawall.demo.layout import SIDES
from seawall.demo.processes import Process
from seawall.demo.run import Shops
from seawall.demo.service import MODES


def addresses(shops: Shops) -> str:
    """Every process with its address and id, and what to try."""
    return "\n".join(_lines(shops))


def _lines(shops: Shops) -> Iterator[str]:
    yield "Both shops stay open until Ctrl-C."
    for side in SIDES:
        shop = shops[side]
        yield f"  {side}"
        if shop.front is not None:
            yield _line("front", shop.front)
        for service, replicas in shop.replicas.items():
            for number, replica in enumerate(replicas, 1):
                yield _line(f"{service} {number}" if len(replicas) > 1 else service, replica)
    seawall, plain = shops["seawall"], shops["plain"]
    victim = seawall.replicas["inventory"][0]
    yield "Look at an item, and buy it; then the same in the plain shop:"
    yield f"  curl {seawall.url}/items/7"
    yield f"  curl -X POST {seawall.url}/orders/7"
    yield f"  curl {plain.url}/items/7"
    yield f"Break a replica ({', '.join(MODES)}), or kill it, and look again:"
    yield f"  curl -X PUT {victim.url}/mode/hang"
    yield f"  kill -9 {victim.pid}"
    yield "What Seawall would do with the next call, and why:"
    yield f"  curl {seawall.url}/explain"


def _line(name: str, process: Process) -> str:
    return f"    {name:<18} {process.url:<24} pid {process.pid}"
