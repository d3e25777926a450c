"""A decorator above the one that registers a function would do nothing: that is an error, which says what to do."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from fastapi import APIRouter, FastAPI
from flask import Blueprint, Flask, current_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from seawall import ConfigError
from seawall.integrations import celery as our_celery
from seawall.integrations import fastapi as our_fastapi
from seawall.integrations import flask as our_flask
from tests.entrance.sites import bucket

endpoint_limit = our_fastapi.limited_endpoint(bucket())
view_limit = our_flask.limited(bucket())
task_limit = our_celery.limited(bucket())
module_app = FastAPI()


def refused(owner: str = "limited") -> Any:
    message = rf"@{owner} stands above.*'search'.*as it is.*never be limited. Put @{owner} below, next to the function"
    return pytest.raises(ConfigError, match=message)


def made() -> Any:
    """A function that nobody has registered yet."""

    def search() -> str:
        return "found"

    return search


def test_fastapi_in_a_function() -> None:
    app = FastAPI()
    with refused("limited_endpoint"):

        @endpoint_limit
        @app.get("/")
        def search() -> str:
            return "found"


def test_fastapi_in_a_module() -> None:
    with refused("limited_endpoint") as caught:
        endpoint_limit(module_app.get("/")(made()))
    assert "decorator of module_app that registers" in str(caught.value)


@pytest.mark.parametrize("method", ["get", "post", "websocket", "api_route"])
def test_a_router_of_fastapi(method: str) -> None:
    router = APIRouter(prefix="/v1")
    FastAPI().include_router(router)
    with refused("limited_endpoint"):
        endpoint_limit(getattr(router, method)("/")(made()))


def test_starlette() -> None:
    app = Starlette()

    async def search(request: Request) -> Response:
        return PlainTextResponse("found")

    app.router.add_route("/", search)
    with refused("limited_endpoint"):
        endpoint_limit(search)


def test_an_application_that_an_object_has() -> None:
    class Shop:
        def __init__(self) -> None:
            self.app = FastAPI()
            with refused("limited_endpoint") as caught:
                endpoint_limit(self.app.get("/")(made()))
            assert "self.app" in str(caught.value)

    Shop()


def test_an_application_in_another_module_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("tests.entrance.applications")
    other.app = FastAPI()  # type: ignore[attr-defined]
    monkeypatch.setitem(globals(), "applications", other)
    get = other.app.get("/")
    del other
    with refused("limited_endpoint") as caught:
        endpoint_limit(get(made()))
    assert "applications.app" in str(caught.value)


def test_flask_and_its_blueprints() -> None:
    app, blueprint = Flask("shop"), Blueprint("shop", "shop")
    with refused():
        view_limit(app.route("/")(made()))
    with refused():
        view_limit(blueprint.get("/")(made()))


def test_celery() -> None:
    app = Celery("shop", set_as_current=False)

    def search() -> str:
        return "found"

    for task in (app.task(shared=False)(search), app.task(bind=True, shared=False)(search), app._task_from_fun(search)):
        with pytest.raises(
            ConfigError, match=r"@limited stands above @app.task.*Put @limited below, next to the function"
        ):
            task_limit(task)


def test_the_right_order_is_right() -> None:
    app, blueprint, router, flask = FastAPI(), Blueprint("shop", "shop"), APIRouter(), Flask("shop")
    app.get("/")(endpoint_limit(made()))
    router.get("/")(endpoint_limit(made()))
    flask.route("/")(view_limit(made()))
    blueprint.route("/")(view_limit(made()))
    Celery("shop", set_as_current=False).task(shared=False)(task_limit(made()))
    endpoint_limit(endpoint_limit(made())), view_limit(view_limit(made()))


def test_an_application_out_of_sight_is_not_found() -> None:
    search = made()
    _registered_elsewhere(search)
    endpoint_limit(search), view_limit(search)


def _registered_elsewhere(search: Any) -> None:
    FastAPI().get("/")(search)
    Flask("shop").route("/")(search)


def test_proxies_and_strange_things_in_sight_do_not_disturb() -> None:
    proxy = current_app  # outside of an application, every question to it is an error

    class Strange:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        @property
        def __class__(self) -> Any:
            raise RuntimeError("class")

    self = strange = Strange()
    endpoint_limit(made()), view_limit(made())
    assert proxy is not None and strange is self


def test_the_message_is_one_sentence_after_the_other() -> None:
    app = FastAPI()
    with pytest.raises(ConfigError) as caught:
        endpoint_limit(app.get("/")(made()))
    assert re.fullmatch(
        r"@\S+ stands above the decorator of app that registers 'search': .*\. Put .*", str(caught.value)
    )
