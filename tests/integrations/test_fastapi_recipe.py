"""The middleware in a real framework: FastAPI lets refusals through to it, and serves requests under their deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

from seawall import CircuitBreaker, DeadlineExceeded, Policy, Rejected, remaining
from seawall.http import outward_headers, problem_for
from seawall.integrations.asgi import SeawallMiddleware
from seawall.testing import run


def site(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SeawallMiddleware, **{"trusted": ["127.0.0.1"], **options})
    return app


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://stock")


def test_a_refusal_in_an_endpoint_reaches_the_caller_as_503() -> None:
    app, payments = site(), Policy(CircuitBreaker(open_for="30s"), name="payments")

    @app.get("/pay")
    async def pay() -> str:
        return await payments.acall(asyncio.sleep, 0, "paid")

    async def main() -> None:
        async with client(app) as http:
            assert (await http.get("/pay")).json() == "paid"
            payments[CircuitBreaker].force_open()
            answer = await http.get("/pay")
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert answer.json()["type"] == "urn:seawall:circuit-open"
            assert "payments" not in answer.text

    run(main)


def test_the_deadline_of_the_caller_holds_in_endpoints_and_streams_and_not_in_background_tasks() -> None:
    app, seen = site(), {}

    def note(where: str) -> None:
        seen[where] = remaining()

    async def later() -> None:
        note("background")

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        note("endpoint")
        tasks.add_task(later)
        return "fine"

    @app.get("/stream")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        async def chunks() -> Any:
            note("stream")
            yield b"chunk"

        tasks.add_task(later)
        return StreamingResponse(chunks(), background=tasks)

    async def main() -> None:
        async with client(app) as http:
            for path in ("/", "/stream"):
                await http.get(path, headers={"Seawall-Deadline": "2000"})
                assert seen.pop("background") is None
            assert seen == {"endpoint": 2.0, "stream": 2.0}

    run(main)


def test_what_goes_out_of_one_service_comes_into_the_next() -> None:
    back, front = site(), site()

    @back.get("/")
    async def left() -> float | None:
        return remaining()

    @front.get("/")
    async def pass_on() -> float | None:
        await asyncio.sleep(0.5)
        async with client(back) as http:
            return float((await http.get("/", headers=outward_headers())).text)

    async def main() -> None:
        async with client(front) as http:
            assert (await http.get("/", headers={"Seawall-Deadline": "2000"})).json() == 1.5

    run(main)


@pytest.mark.parametrize(("error", "status"), [(Rejected("x", retry_after=3), 503), (DeadlineExceeded(), 504)])
def test_an_error_handler_does_the_same_without_the_middleware(error: Exception, status: int) -> None:
    app = FastAPI()

    @app.exception_handler(type(error))
    async def refuse(request: Any, error: Exception) -> Any:
        from fastapi import Response

        problem = problem_for(error)
        assert problem is not None
        return Response(problem.body, problem.status, dict(problem.headers))

    @app.get("/")
    async def endpoint() -> None:
        raise error

    async def main() -> None:
        async with client(app) as http:
            answer = await http.get("/")
            assert (answer.status_code, answer.headers.get("retry-after")) == (status, "3" if status == 503 else None)
            assert int(answer.headers["content-length"]) == len(answer.content)

    run(main)
