"""A client middleware for aiohttp: plain client code becomes replicated, guarded and observable.

import aiohttp
from seawall import Cluster, CircuitBreaker, Timeout
from seawall.integrations.aiohttp import Middleware

Cluster("inventory", ["http://10.0.0.1:80", "http://10.0.0.2:80"], each=(CircuitBreaker(), Timeout("500ms")))
async with aiohttp.ClientSession(middlewares=[Middleware()]) as session:
    async with session.get("http://inventory/items/7") as response: ...
"""

from seawall.http.answers import BadAnswer, Served
from seawall.http.pacing import Pace
from seawall.http.sending import sending

try:
    from seawall.integrations.aiohttp._middleware import Middleware, served
except ModuleNotFoundError as error:
    if error.name != "aiohttp":
        raise
    raise ModuleNotFoundError(
        "seawall.integrations.aiohttp needs aiohttp: pip install 'seawall[aiohttp]'", name="aiohttp"
    ) from None

__all__ = ["BadAnswer", "Middleware", "Pace", "Served", "sending", "served"]
