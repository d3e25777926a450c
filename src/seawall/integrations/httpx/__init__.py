"""Transports for httpx and httpx2, sync and async: plain client code becomes replicated, guarded and observable.

    import httpx                      # or httpx2
    from seawall import Cluster, CircuitBreaker, Timeout
    from seawall.integrations.httpx import Transport

    Cluster("inventory", ["http://10.0.0.1:80", "http://10.0.0.2:80"], each=(CircuitBreaker(), Timeout("500ms")))
    client = httpx.Client(transport=Transport())
    client.get("http://inventory/items/7")

Neither package is imported here: a transport works with the package that its client is from.
"""

from seawall.http.answers import BadAnswer, Served
from seawall.http.pacing import Pace
from seawall.http.sending import sending
from seawall.integrations.httpx._asynchronous import AsyncTransport
from seawall.integrations.httpx._synchronous import Transport

__all__ = ["AsyncTransport", "BadAnswer", "Pace", "Served", "Transport", "sending"]
