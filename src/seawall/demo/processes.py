"""Starts, kills and restarts the processes of the shop, and leaves none behind."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import IO, Final

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0


class StartError(Exception):
    """A process could not be started, or ended when nobody wanted that; the message says why."""


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a process of the shop."""
    return [sys.executable, "-P", "-m", f"seawall.demo.{module}", *arguments]


def _environment() -> dict[str, str]:
    # The child must find the very modules this process runs, however it was started, and none from elsewhere.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


class Process:
    """One process, and the port that it keeps over a restart. Whoever starts it has to `kill` it.

    `name` is for messages; `keep` are file descriptors that it inherits; its ids are appended to `pids`.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], pids: list[int], keep: Sequence[int] = ()
    ) -> None:
        self.name = name
        self._module = module
        self._arguments = arguments
        self._pids = pids
        self._keep = keep
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its id, while it runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process and wait until it serves; raises `StartError`."""
        arguments = [*self._arguments, "--port", str(self._port)]
        # A file and not a pipe: nobody reads it while the process runs, and a full pipe would stop it.
        with tempfile.TemporaryFile() as stderr:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command(self._module, arguments),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=stderr,
                    env=_environment(),
                    pass_fds=self._keep,
                    start_new_session=True,  # a Ctrl-C in the terminal is for the demo; it ends the others itself
                )
            except OSError as error:
                raise StartError(f"{self.name} could not be started: {error}") from error
            self._process = process
            self._pids.append(process.pid)
            try:
                self._port = await _announced_port(process)
            except (TimeoutError, ValueError, KeyError, TypeError) as error:
                await _let_it_end(process)
                await self.kill()
                raise StartError(f"{self.name} {_why(process.returncode, stderr, error)}") from error

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

    async def restart(self) -> None:
        """Kill it, if it runs, and start it anew at the same port."""
        await self.kill()
        await self.start()

    def check(self) -> None:
        """Raises `StartError` if it has ended by itself."""
        code = None if self._process is None else self._process.returncode
        if code is not None:
            raise StartError(f"{self.name} ended by itself (exit code {code})")


async def all_of(things: Iterable[Coroutine[object, object, None]]) -> None:
    """Do them all at once; if one fails, cancel the others and raise its error."""
    async with asyncio.TaskGroup() as group:
        for thing in things:
            group.create_task(thing)


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
        return f"did not start within {START_SECONDS:g} s"
    stderr.seek(0)
    said = stderr.read().decode(errors="replace").strip().splitlines()
    return f"did not start (exit code {returncode}): {said[-1] if said else 'it said nothing'}"
