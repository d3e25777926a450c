"""A scraper that paces itself: by what a site says it allows, and evenly where it says nothing."""

from collections import Counter

import httpx

from seawall import LeakyBucket, Limiter, RateLimited
from seawall.http import Pace
from seawall.integrations.httpx import Transport
from seawall.runtime import clock

PAGES = 12
QUOTA, WINDOW = 5, 10  # what the first site allows, in seconds


class Site:
    """Stands for a site on the network that says what it allows: five pages in ten seconds, then 429."""

    def __init__(self) -> None:
        self.end = self.given = 0.0
        self.statuses: Counter[int] = Counter()

    def answer(self, request: httpx.Request) -> httpx.Response:
        now = clock.now_ns() / 1e9
        if now >= self.end:
            self.end, self.given = now + WINDOW, 0
        self.given += 1
        status = 200 if self.given <= QUOTA else 429
        self.statuses[status] += 1
        left, seconds = max(0, QUOTA - self.given), -(-(self.end - now) // 1)
        fields = {
            "RateLimit": f'"pages";r={left:.0f};t={seconds:.0f}',
            "RateLimit-Policy": f'"pages";q={QUOTA};w={WINDOW}',
        }
        return httpx.Response(status, headers=fields, text=f"<html>{request.url.path}</html>")


def scrape(pace: Pace | bool) -> Site:
    site = Site()
    transport = Transport([], inner=httpx.MockTransport(site.answer), pace=pace)  # leave `inner` out to use the network
    began = clock.now_ns()
    with httpx.Client(transport=transport) as client:
        for number in range(PAGES):
            client.get(f"https://a.example/{number}")
    print(f"pace={pace}: {dict(site.statuses)} in {(clock.now_ns() - began) / 1e9:.0f} s")
    return site


# A site that says nothing is asked four times a second; at most 100 callers wait for it, and nobody longer than 10 s.
evenly = Limiter(LeakyBucket("4/s", queue=100, max_wait="10s"), name="scraper")


@evenly.limit(
    key=lambda url: url.split("/")[2], max_wait=None
)  # threads and coroutines alike, in one line for each site
def fetch(url: str) -> str:
    """Stands for a request: `client.get(url)`."""
    return f"<html>{url}</html>"


def main() -> None:
    scrape(pace=False)
    scrape(pace=Pace(max_wait="15s", name="polite"))

    # Who is in a hurry is told when it is his turn, and nothing is sent.
    site = Site()
    with httpx.Client(transport=Transport([], inner=httpx.MockTransport(site.answer), pace=Pace(max_wait=0))) as client:
        try:
            for number in range(PAGES):
                client.get(f"https://b.example/{number}")
        except RateLimited as error:
            print(f"{site.statuses.total()} pages at once, then: {error}")

    began = clock.now_ns()
    pages = [fetch(f"https://{site}.example/{number}") for number in range(6) for site in ("c", "d")]
    print(f"{len(pages)} pages of two sites that say nothing in {(clock.now_ns() - began) / 1e9:.2f} s")

    # One of them asks for less: the pace changes at once, for those who wait already too.
    evenly.reconfigure(LeakyBucket("1/min", queue=100, max_wait="10s"))
    fetch("https://e.example/1")
    try:
        fetch("https://e.example/2")
    except RateLimited as error:
        print(error)


if __name__ == "__main__":
    main()
