"""One benchmark run: its cores, its folder, its upstream, and the programs that it starts."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .peers import Answer, NginxAnswer, Peer, Place
from .process import Cores, NotInstalled, Process, free_port, running, wait_for_answer


@dataclass(frozen=True, slots=True)
class Bench:
    """Starts programs, each in a folder of its own; all of them end with the run."""

    cores: Cores
    folder: Path
    stack: ExitStack
    body_bytes: int

    def start(
        self, peer: Peer, upstream: Process | None = None, path: str = "/", pause: float = 0.05
    ) -> Process:
        """Start a peer and wait until it answers, asked every `pause` seconds; without an upstream it runs on
        the load core.
        """
        program = peer.find()
        if program is None:
            raise NotInstalled(f"not installed ({peer.install})")
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)  # a server that was started as root reads its files as another user
        place = Place(folder, free_port(), upstream.port if upstream else 0, self.body_bytes)
        core = self.cores.measured if upstream else self.cores.load
        log = folder / "stderr.log"
        command = peer.command(program, place)
        process = self.stack.enter_context(
            running(peer.name, command, port=place.port, core=core, log=log, environment=place.environment())
        )
        wait_for_answer(process, path, self.body_bytes, log, pause)
        return process

    def start_upstream(self) -> Process:
        """nginx with one small file; where it is missing, uvicorn, which may bound the fast peers."""
        nginx = NginxAnswer()
        return self.start(nginx if nginx.find() else Answer())


@contextmanager
def bench(body_bytes: int = 1024) -> Iterator[Bench]:
    """The two cores, and a temporary folder. This process itself stays on the load core."""
    cores = Cores.choose()
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        os.sched_setaffinity(0, {cores.load})
        stack.callback(os.sched_setaffinity, 0, allowed)
        yield Bench(cores, folder, stack, body_bytes)
