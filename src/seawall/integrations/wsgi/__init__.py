"""WSGI middlewares, for Flask, Django, Pyramid and whatever else speaks WSGI.

- `SeawallMiddleware`: a request runs in its caller's context, and a refusal nobody caught becomes a fitting answer;
- `RateLimitMiddleware`: requests beyond a limit are refused, and all others told how much is left.
"""

from seawall.integrations.wsgi._context import SeawallMiddleware
from seawall.integrations.wsgi._limit import RateLimitMiddleware

__all__ = ["RateLimitMiddleware", "SeawallMiddleware"]
