"""Starts, kills and restarts the service processes, and leaves none behind."""

import asyncio
import json
import os
import sys
import tempfile
from contextlib import suppress
from typing import IO, Final

import aiohttp

from seawall.demo.traffic import ERROR_RATE, Order

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 5.0
CONTROL_SECONDS: Final = 5.0


class StartError(Exception):
    """The service could not be started, or could not be told what to do; the message says why."""


def command(port: int, seed: str) -> list[str]:
    """The command line of the service."""
    return [sys.executable, "-P", "-m", "seawall.demo.service", "--port", str(port), "--seed", seed]


def _environment() -> dict[str, str]:
    # The child must find the very modules this process runs, however it was started, and none from elsewhere.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


class Service:
    """One service: a process, and the port that it keeps over a restart. Whoever starts it has to `kill` it.

    The ids of its processes are appended to `pids`.
    """

    def __init__(self, seed: str, pids: list[int]) -> None:
        self._seed = seed
        self._pids = pids
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}"

    async def obey(self, order: Order) -> None:
        """Carry out one step of a phase."""
        if order == "kill":
            await self.kill()
        elif order == "start":
            await self.start()
        elif order == "errors":
            await self._tell("errors", ERROR_RATE)
        else:
            await self._tell("hang")

    async def start(self) -> None:
        """Start the process and wait until it serves; raises `StartError`."""
        # A file and not a pipe: nobody reads it while the service runs, and a full pipe would stop the service.
        with tempfile.TemporaryFile() as stderr:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command(self._port, self._seed),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=stderr,
                    env=_environment(),
                    start_new_session=True,  # a Ctrl-C in the terminal is for the demo; it ends the services itself
                )
            except OSError as error:
                raise StartError(f"the demo's service could not be started: {error}") from error
            self._process = process
            self._pids.append(process.pid)
            try:
                self._port = await _announced_port(process)
            except (TimeoutError, ValueError, KeyError, TypeError) as error:
                await _let_it_end(process)
                await self.kill()
                raise StartError(_why(process.returncode, stderr, error)) from error

    async def kill(self) -> None:
        """End the process at once (SIGKILL) and wait for it; does nothing when none runs, so it may be repeated."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it may have ended by itself a moment ago
                process.kill()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
        self._process = None  # not before: a kill that is cancelled while it waits can be repeated

    async def _tell(self, mode: str, rate: float = 0.0) -> None:
        timeout = aiohttp.ClientTimeout(total=CONTROL_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{self.url}/control", json={"mode": mode, "rate": rate}) as reply,
            ):
                reply.raise_for_status()
        except (aiohttp.ClientError, OSError) as error:
            raise StartError(
                f"the demo's service does not take orders: {str(error) or type(error).__name__}"
            ) from error


async def _announced_port(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        line = await process.stdout.readline()
    return int(json.loads(line)["port"])


async def _let_it_end(process: asyncio.subprocess.Process) -> None:
    # Its output ends a moment before it does; killed in that moment, its own exit code would be lost.
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await process.wait()


def _why(returncode: int | None, stderr: IO[bytes], error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"the demo's service did not start within {START_SECONDS:g} s"
    stderr.seek(0)
    said = stderr.read().decode(errors="replace").strip().splitlines()
    return f"the demo's service did not start (exit code {returncode}): {said[-1] if said else 'it said nothing'}"
