"""Hundreds of reloads under load: nothing fails, nothing is mixed, nothing grows (P54)."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.measuring import MIB, children, linux, open_files, resident, until
from tests.processes import Running, gateway
from tests.wire.conftest import Answer, Behind
from tests.wire.load import load

RELOADS = 200
WARM = 20
"""Reloads after which memory and files are what they will be."""
GROWTH = 6 * MIB


def version(url: str, number: int, workers: int) -> dict[str, Any]:
    """Two components of one version say its number, and so does the name of the route."""

    def says(name: str) -> dict[str, Any]:
        return {"headers": {"response": {"set": {name: str(number)}}}}

    return {
        "server": {"listen": "127.0.0.1:0", "drain": "0s", "workers": workers},
        "components": [says("x-first")],
        "upstreams": {"up": {"targets": [url]}},
        "routes": [
            {"name": f"all-{number}", "path": "/*", "upstream": "up", "components": [says("x-second")]}
        ],
    }


def unmixed(answer: Answer) -> bool:
    first = answer.all(b"x-first")
    return answer.status == 200 and len(first) == 1 and first == answer.all(b"x-second")


def taken(one: Running, workers: int) -> tuple[int, int]:
    """Memory and files of all who serve."""
    pids = children(one.process.pid) if workers > 1 else {one.process.pid}
    return sum(map(resident, pids)), sum(map(open_files, pids))


@linux
@pytest.mark.parametrize("workers", [1, 2])
async def test_reloads_under_load_fail_no_request_mix_no_answer_and_grow_nothing(
    tmp_path: Path, upstream: Behind, workers: int
) -> None:
    url = (await upstream()).url
    async with gateway(tmp_path, version(url, 0, workers)) as one:
        slowest, before = 0.0, (0, 0)
        seen: set[bytes] = set()

        def look(answer: Answer) -> bool:
            seen.update(answer.all(b"x-first"))
            return unmixed(answer)

        async with load(one.url, callers=4, look=look, methods=("GET",)) as some:
            for number in range(1, RELOADS + 1):
                one.write(version(url, number, workers))
                began = time.monotonic()
                one.signal(signal.SIGHUP)
                said = await one.says("the configuration was read again", times=number)
                slowest = max(slowest, time.monotonic() - began)
                assert workers == 1 or said.string.endswith(f"; {workers} workers serve it")
                if number == WARM:
                    before = taken(one, workers)
            # Whoever asks from here on gets the last version.
            enough = some.answered + 8
            await until(lambda: some.answered >= enough)
            seen.clear()
            await until(lambda: some.answered >= enough + 8)
        memory, files = taken(one, workers)
        print(
            f"{workers}: {some.answered} answered, slowest reload {slowest:.2f} s,"
            f" {(memory - before[0]) / MIB:+.1f} MiB, {files - before[1]:+d} files"
        )
        assert not some.failed
        assert seen == {b"%d" % RELOADS}
        assert slowest < 2
        assert memory - before[0] < GROWTH * workers
        assert files - before[1] <= 4 * workers
        assert await one.stop() == 0
