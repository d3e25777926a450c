"""An integration whose framework is not there says what to install; the middlewares need none."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run_without(missing: list[str], statement: str) -> subprocess.CompletedProcess[str]:
    hidden = "".join(f"sys.modules[{name!r}] = None; " for name in missing)
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {hidden}{statement}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


@pytest.mark.parametrize(
    ("integration", "missing"),
    [("fastapi", ["starlette", "fastapi"]), ("flask", ["flask"]), ("django", ["django"]), ("celery", ["celery"])],
)
def test_a_missing_framework_is_named_with_its_extra(integration: str, missing: list[str]) -> None:
    done = run_without(missing, f"import seawall.integrations.{integration}")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert last.endswith(f'pip install "seawall[{integration}]"')


def test_the_middlewares_load_no_framework() -> None:
    names = ["starlette", "fastapi", "flask", "werkzeug", "django", "asgiref", "celery"]
    statement = "from seawall.integrations.asgi import RateLimitMiddleware; from seawall.integrations import wsgi"
    done = run_without(names, statement)
    assert done.returncode == 0, done.stderr


def test_with_starlette_alone_the_decorator_works() -> None:
    statement = (
        "from seawall import Limiter, TokenBucket; from seawall.integrations.fastapi import limited_endpoint, install; "
        "limited_endpoint(Limiter(TokenBucket('1/s')), key=lambda r: 'k')(lambda request: 1)"
    )
    done = run_without(["fastapi", "fastapi.params"], statement)
    assert done.returncode == 0, done.stderr
