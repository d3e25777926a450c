"""A language-model client limited in requests and tokens per minute, where the cost is known only afterwards."""

import asyncio
from dataclasses import dataclass

from seawall import Limiter, RateLimited, SlidingWindow

# What the provider allows in any minute. A bucket would let twice as much pass in a bad one.
llm = Limiter({"requests": SlidingWindow("60/min"), "tokens": SlidingWindow("9000/min")}, name="llm")


@dataclass
class Reply:
    text: str
    total_tokens: int


async def complete(prompt: str, max_tokens: int) -> Reply:
    """Stands for the provider's client."""
    await asyncio.sleep(0.001)
    if prompt == "nonsense":
        raise ConnectionError("the provider hung up")
    return Reply(f"an answer to {prompt!r}", len(prompt.split()) + max_tokens // 4)


async def ask(team: str, prompt: str, max_tokens: int = 2_000) -> Reply:
    """Both limits or neither, by the estimate; then what was really used."""
    estimate = {"requests": 1, "tokens": len(prompt.split()) * 2 + max_tokens}
    held = await llm.areserve(team, estimate)
    try:
        reply = await complete(prompt, max_tokens)
    except ConnectionError:
        await held.acancel()  # nothing was done: nothing is counted
        raise
    except BaseException:
        await held.asettle()  # who knows: the estimate counts in full
        raise
    await held.asettle(tokens=reply.total_tokens)
    return reply


def left(team: str) -> dict[str, int]:
    return {name: part.remaining for name, part in llm.peek(team, {"requests": 0, "tokens": 0}).parts.items()}


async def main() -> None:
    reply = await ask("search", "what is a seawall")
    print(f"{reply.text}: {reply.total_tokens} tokens; left: {left('search')}")

    # Four at once need 8,000 by their estimates, and far less in the end.
    await asyncio.gather(*[ask("search", "summarize this page") for _ in range(4)])
    print(f"after four at once: {left('search')}")

    results = await asyncio.gather(*[ask("search", "summarize this page") for _ in range(6)], return_exceptions=True)
    refused = [result for result in results if isinstance(result, RateLimited)]
    print(f"of six at once {len(results) - len(refused)} were admitted; the others: {refused[0]}")

    before = left("search")
    try:
        await ask("search", "nonsense")
    except ConnectionError as error:
        print(f"{error}: as before: {left('search') == before}")
    print(f"another team has its own: {left('ads')}")


if __name__ == "__main__":
    asyncio.run(main())
