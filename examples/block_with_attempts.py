"""A block with attempts: repeat a few lines of code, sync or async, without making a function of them."""

import asyncio

from seawall import CircuitBreaker, Policy, Retry, deadline, remaining

fetch = Policy(Retry(on=ConnectionError, attempts=4, delay="10ms"), CircuitBreaker(), name="fetch")


def in_sync() -> None:
    for attempt in fetch.attempts():
        with attempt:
            print("sync attempt", attempt.number)
            if attempt.number < 2:
                raise ConnectionError("refused")


async def in_async() -> None:
    async for attempt in fetch.attempts():
        with attempt:
            await asyncio.sleep(0.001)
            print("async attempt", attempt.number)
            if attempt.number < 3:
                raise ConnectionError("refused")


def until_the_deadline() -> None:
    try:
        with deadline("5ms"):
            for attempt in fetch.attempts():
                with attempt:
                    left = remaining()
                    print("time is left" if left and left > 0 else "no time is left")
                    raise ConnectionError("refused")
    except ConnectionError as error:
        print(*error.__notes__)


def main() -> None:
    in_sync()
    asyncio.run(in_async())
    until_the_deadline()


if __name__ == "__main__":
    main()
