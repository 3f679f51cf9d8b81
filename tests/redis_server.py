"""A real Redis: started on a free port without persistence, killed, stopped, and started again."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 10.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def is_installed() -> bool:
    return shutil.which("redis-server") is not None


class RedisServer:
    """One server; it keeps its port over restarts."""

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        self.port = free_port()
        listen = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        self._command = [
            *("redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--dir", str(folder), "--loglevel", "warning", *listen, *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        late = time.monotonic() + PATIENCE
        while time.monotonic() < late:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.005)
        raise TimeoutError("redis-server does not listen")

    def kill(self) -> None:
        """It dies, with everything that it knew."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It holds its connections, and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def talk(self, *words: str) -> bytes:
        """What it says to a command that it answers in one line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as line:
            parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
            line.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return line.recv(65536)

    def connections(self) -> int:
        """How many are open, this one not counted."""
        found = self.talk("INFO", "clients").partition(b"connected_clients:")[2]
        return int(found.split()[0]) - 1


@contextmanager
def redis_server(folder: Path, *options: str, tls: bool = False) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.thaw()
        server.kill()
