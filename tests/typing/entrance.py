"""Limits at an entrance fit the frameworks' types, and decorators keep those of functions. Never run."""

from __future__ import annotations

from typing import Annotated, assert_type
from wsgiref.simple_server import make_server
from wsgiref.types import WSGIApplication

from fastapi import Depends, FastAPI
from flask import Blueprint, Flask

from seawall import Limiter, Rule, Rules, TokenBucket
from seawall.http import ClientAddress, Request, api_key, first_of, user_key
from seawall.integrations import asgi, celery, fastapi, flask, wsgi

limiter = Limiter(TokenBucket("100/s"))
rules = Rules(Rule(TokenBucket("100/s")))
app = FastAPI()


async def slow_key(request: Request) -> int | None:
    return len(request.path)


def parts(request: Request) -> dict[str, str]:
    return {"operation": request.operation or request.path}


app.add_middleware(
    asgi.RateLimitMiddleware, limiter=limiter, key=ClientAddress(trusted=["10.0.0.0/8"]), exempt=["/health"]
)
app.add_middleware(asgi.RateLimitMiddleware, limiter=limiter, key=slow_key, cost=lambda request: len(request.path))
app.add_middleware(asgi.RateLimitMiddleware, limiter=rules, key=parts, messages=rules, fields="both")
asgi.RateLimitMiddleware(app, limiter, key=first_of(api_key(), user_key(lambda request: 42), ClientAddress()))
asgi.RateLimitMiddleware(app, limiter, exempt=lambda request: request.method == "OPTIONS")
fastapi.install(app)


def current_user(token: str) -> int:
    return len(token)


@app.get("/", dependencies=[Depends(fastapi.limited(limiter, key=current_user))])
@fastapi.limited_endpoint(rules, key=parts)
async def search(text: str, decision: Annotated[object, Depends(fastapi.limited(limiter))]) -> list[str]:
    return [text, str(decision)]


@flask.limited(limiter, key=lambda request: request.header("x-user"))
def view(number: int) -> str:
    return str(number)


def by_mail(mail: int, *, urgent: bool = False) -> str:
    return f"{mail}{urgent}"


@celery.limited(limiter, key=by_mail, cost=2, max_delay="5min", max_requeues=3)
def send(mail: int, *, urgent: bool = False) -> str:
    return f"{mail} {urgent}"


def keeps_types(application: WSGIApplication) -> None:
    assert_type(view(3), str)
    assert_type(send(3, urgent=True), str)
    flask.limit_app(Flask("shop"), limiter, exempt=["static"])
    flask.limit_app(Blueprint("shop", "shop"), rules, key=parts)
    make_server("", 8000, wsgi.RateLimitMiddleware(application, limiter, key=ClientAddress()))


asgi.RateLimitMiddleware(app, TokenBucket("1/s"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
asgi.RateLimitMiddleware(app, limiter, fields="new")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
view("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
send(3, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
