"""Gateways as processes of their own: start one, wait for what it says, and end it."""

import asyncio
import contextlib
import json
import os
import re
import signal as signals
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIMITED = """
import resource, runpy, sys
files = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
runpy.run_module("asgi_gateway", run_name="__main__", alter_sys=True)
"""
"""`asgi-gateway` with so many open files and no more."""
PATIENCE = 30.0
"""Seconds that a process has for anything; only a broken one needs them."""


def write(file: Path, content: str | Mapping[str, Any]) -> Path:
    """Write a document, or a text that shall be one."""
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


class Running:
    """A process. Its lines are kept, standard output and standard error apart."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path | None = None) -> None:
        self.process = process
        self.file = file
        self.out: list[str] = []
        self.err: list[str] = []
        self.url = ""
        self._said = asyncio.Condition()
        self._open = 2
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = asyncio.gather(
            self._read(process.stdout, self.out), self._read(process.stderr, self.err)
        )

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))
            async with self._said:
                self._said.notify_all()
        async with self._said:
            self._open -= 1
            self._said.notify_all()

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until a line matches, so many times; the last match."""

        def found() -> list[re.Match[str]]:
            return [match for line in (*self.out, *self.err) if (match := re.search(pattern, line))]

        def enough() -> bool:
            return len(found()) >= times or not self._open

        try:
            async with asyncio.timeout(PATIENCE), self._said:
                await self._said.wait_for(enough)
        except TimeoutError:
            pass
        matches = found()
        assert len(matches) >= times, f"{pattern!r} was not said {times} times:\n{self}"
        return matches[times - 1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def write(self, content: str | Mapping[str, Any]) -> None:
        """Write the configuration file anew, in place."""
        assert self.file is not None
        write(self.file, content)

    async def ended(self) -> int:
        """Wait for the end; the exit code."""
        async with asyncio.timeout(PATIENCE):
            await self._readers
            return await self.process.wait()

    async def stop(self, number: int = signals.SIGTERM) -> int:
        self.signal(number)
        return await self.ended()

    def __str__(self) -> str:
        return "\n".join(["--- out", *self.out, "--- err", *self.err])


@contextlib.asynccontextmanager
async def running(
    *command: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    file: Path | None = None,
    quiet: bool = True,
) -> AsyncIterator[Running]:
    """A Python process, `python *command`; ended with the block. If `quiet`, a traceback is an error."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    one = Running(process, file)
    try:
        yield one
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await one.ended()
            except TimeoutError:
                process.kill()
        await one.ended()
    assert not quiet or not any("Traceback" in line for line in one.err), str(one)


@contextlib.asynccontextmanager
async def gateway(
    folder: Path,
    document: Mapping[str, Any],
    *options: str,
    env: Mapping[str, str] | None = None,
    quiet: bool = True,
    files: int | None = None,
) -> AsyncIterator[Running]:
    """`asgi-gateway run` with a document, on a free port unless that says otherwise, see `url`.

    `files`: how many it may open.
    """
    server = {"listen": "127.0.0.1:0", "drain": "0s", **document.get("server", {})}
    file = write(folder / "gateway.yaml", {**document, "server": server})
    start = ("-m", "asgi_gateway") if files is None else ("-c", LIMITED, str(files))
    async with running(*start, "run", str(file), *options, env=env, file=file, quiet=quiet) as one:
        one.url = (await one.says(r"listens on (\S+):"))[1]
        yield one


async def asgi_gateway(*arguments: str, env: Mapping[str, str] | None = None) -> Running:
    """`asgi-gateway` with some arguments, run to its end."""
    async with running("-m", "asgi_gateway", *arguments, env=env) as one:
        await one.ended()
    return one
