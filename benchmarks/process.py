"""Processes of a benchmark: each on one core, with its CPU time, and gone when its block ends."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds of one unit of CPU time in /proc."""


class NotRunning(Exception):
    """Something that a benchmark needs cannot run; the text says what and why."""


class NotInstalled(NotRunning):
    """It is not there at all: a row of the table says so, and the rest is measured."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the processes run: what is measured on one core, the load and the upstream on another."""

    measured: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """The first two cores that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise NotRunning(
                "two CPU cores are needed: one for the gateway, one for the load and the upstream"
            )
        return cls(*allowed[:2])


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_stat(text: str) -> tuple[int, int]:
    """Parent and CPU ticks, user and system, out of /proc/<pid>/stat, where the name may hold anything."""
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[11]) + int(fields[12])


def read_processes() -> dict[int, tuple[int, int]]:
    """Parent and CPU ticks of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it may end while we look
                found[int(folder.name)] = read_stat((folder / "stat").read_text())
    return found


def tree_ticks(root: int, processes: Mapping[int, tuple[int, int]]) -> int:
    """CPU ticks of a process and all its descendants."""
    own = processes[root][1] if root in processes else 0
    return own + sum(tree_ticks(pid, processes) for pid, (parent, _) in processes.items() if parent == root)


def core_busy_seconds(core: int) -> float:
    """CPU seconds that a core has worked since the system started, for anybody."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            idle, waiting = int(ticks[3]), int(ticks[4])
            return (sum(map(int, ticks[:8])) - idle - waiting) * TICK
    return 0.0


@dataclass(frozen=True, slots=True)
class Process:
    """One program that was started here; it answers on `port`."""

    name: str
    program: subprocess.Popen[bytes]
    port: int

    @property
    def pid(self) -> int:
        return self.program.pid

    def cpu_seconds(self) -> float:
        """CPU seconds, user and system, of the process and all its descendants."""
        return tree_ticks(self.pid, read_processes()) * TICK

    def settle(self, patience: float = 2.0) -> None:
        """Wait until it rests, at most `patience` seconds: one round leaves nothing to the next."""
        end = time.monotonic() + patience
        before = self.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(0.1)
            now = self.cpu_seconds()
            if now - before <= TICK:
                return
            before = now

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of one GET; (0, b"") when it cannot be reached."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException):
            return 0, b""
        finally:
            connection.close()


@contextmanager
def running(
    name: str, command: Sequence[str], *, port: int, core: int, log: Path, environment: Mapping[str, str]
) -> Iterator[Process]:
    """Run a program on one core until the block ends. What it says on standard error is kept in `log`."""
    with log.open("wb") as errors:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        yield Process(name, program, port)
    finally:
        stop(program)


def stop(program: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started, by their process group."""
    for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(program.pid, number)
        with suppress(subprocess.TimeoutExpired):
            program.wait(patience)


def last_line(log: Path) -> str:
    """What a program said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def wait_for_answer(
    process: Process, path: str, size: int, log: Path, pause: float = 0.05, patience: float = 20.0
) -> None:
    """Wait until a GET brings 200 with a body of `size` bytes: what answers nonsense is not measured."""
    end = time.monotonic() + patience
    status, body = process.get(path)
    while (status, len(body)) != (200, size):
        if process.program.poll() is not None or time.monotonic() > end:
            state = (
                "ended" if process.program.returncode is not None else f"answered {status}, {len(body)} bytes"
            )
            raise NotRunning(f"{process.name} {state}: {last_line(log)}")
        time.sleep(pause)
        status, body = process.get(path)
