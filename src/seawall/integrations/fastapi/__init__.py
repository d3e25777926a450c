"""Limits inside FastAPI and Starlette, where the user and the route are known: a dependency, a decorator, the answers.

    from seawall.integrations.fastapi import install, limited

    app = FastAPI()
    install(app)

    @app.get("/search", dependencies=[Depends(limited(limiter, key=current_user_id))])
    async def search(text: str) -> list[str]: ...

Limits that need not know the user stand further outside, as `seawall.integrations.asgi.RateLimitMiddleware`.
"""

from seawall.integrations.fastapi._gate import TooManyRequests  # isort: skip  # says what to install
from seawall.integrations.fastapi._dependency import limited
from seawall.integrations.fastapi._endpoint import limited_endpoint
from seawall.integrations.fastapi._install import install

__all__ = ["TooManyRequests", "install", "limited", "limited_endpoint"]
