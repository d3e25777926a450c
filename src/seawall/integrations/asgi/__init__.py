"""ASGI middlewares, for Starlette, FastAPI, Litestar and whatever else speaks ASGI.

- `SeawallMiddleware`: a request runs in its caller's context, and a refusal nobody caught becomes a fitting answer;
- `RateLimitMiddleware`: requests beyond a limit are refused, and all others told how much is left.
"""

from seawall.integrations.asgi._context import SeawallMiddleware
from seawall.integrations.asgi._limit import RateLimitMiddleware

__all__ = ["RateLimitMiddleware", "SeawallMiddleware"]
