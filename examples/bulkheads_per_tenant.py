"""Bulkheads per tenant: one tenant's flood fills its own compartment and leaves the others alone."""

import asyncio
from collections import Counter

from seawall import Bulkhead, BulkheadFull, Policy

exports = Policy(Bulkhead(2).per(lambda tenant, *_: tenant), name="exports")


@exports
async def export(tenant: str, day: int) -> str:
    await asyncio.sleep(0.01)  # stands for the work
    return f"{tenant}, day {day}"


async def ask(tenant: str, day: int, ends: Counter[str]) -> None:
    try:
        await export(tenant, day)
        ends[f"{tenant}: done"] += 1
    except BulkheadFull as refusal:
        ends[f"{tenant}: refused"] += 1
        if ends[f"{tenant}: refused"] == 1:
            print("first refusal:", refusal)


async def main() -> None:
    ends: Counter[str] = Counter()
    flood = [ask("acme", day, ends) for day in range(10)]
    await asyncio.gather(*flood, ask("globex", 1, ends), ask("initech", 1, ends))
    for end, count in sorted(ends.items()):
        print(f"{end} {count}")


if __name__ == "__main__":
    asyncio.run(main())
