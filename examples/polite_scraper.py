"""A scraper that paces itself: one request after the other for each site, evenly, whatever else it does."""

from collections import Counter

from seawall import LeakyBucket, Limiter, RateLimited

SITES = ["https://a.example", "https://b.example"]
PAGES = [f"{site}/{number}" for number in range(6) for site in SITES]

# Each site is asked four times a second, at most 100 callers wait for it, and nobody longer than 10 s.
pace = Limiter(LeakyBucket("4/s", queue=100, max_wait="10s"), name="scraper")
fetched: Counter[str] = Counter()


def site_of(url: str) -> str:
    return "/".join(url.split("/")[:3])


@pace.limit(key=site_of, max_wait=None)  # waits for its turn; from threads and coroutines alike, in one line
def fetch(url: str) -> str:
    """Stands for a request: `client.get(url)`."""
    fetched[site_of(url)] += 1
    return f"<html>{url}</html>"


def main() -> None:
    pages = [fetch(url) for url in PAGES]
    print(f"{len(pages)} pages: {dict(fetched)}")

    # Who is in a hurry does not wait, and is told when it is his turn.
    for url in ("https://c.example/1", "https://c.example/2"):
        decision = pace.hit(site_of(url))
        print(url, "now" if decision else f"not before {decision.retry_after * 1000:.0f} ms have passed")

    # The site asks for less: the pace changes at once, for those who wait already too.
    pace.reconfigure(LeakyBucket("1/min", queue=100, max_wait="10s"))
    fetch("https://d.example/1")
    try:
        fetch("https://d.example/2")
    except RateLimited as error:
        print(error)


if __name__ == "__main__":
    main()
