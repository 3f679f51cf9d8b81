"""The public test-suite for HTTP caches (npm: http-cache-tests) against a gateway with the cache on."""

import asyncio
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE, ROOT, gateway

SUITE = ROOT / ".venv" / "http-cache-tests" / "node_modules" / "http-cache-tests"
RUN = ROOT / "tests" / "cache_suite" / "run.mjs"
SCORE = ROOT / "tests" / "cache_suite" / "score.json"
"""How many tests pass. It only ever goes up."""
CACHES = {
    "as it is": {},
    "everything on": {"heuristic": 0.1, "errors": True, "stale_if_error": "1m"},
}
PEERS = ("apache", "nginx", "squid", "trafficserver", "varnish")
"""Well-known caches whose results the suite contains."""
OURS = {
    **dict.fromkeys(
        [f"status-{status}-stale" for status in (500, 502, 503, 504, 599)],
        "errors are kept only where that is allowed",
    ),
}
"""What all of them pass and we do not, as it is, and why."""

Results = dict[str, Any]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not SUITE.is_dir():
        pytest.skip("the HTTP cache test-suite needs node and npm: scripts/setup installs both where it can")
    return found


@asynccontextmanager
async def origin(node: str, folder: Path) -> AsyncIterator[int]:
    """The server of the suite; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    env = {
        "npm_config_protocol": "http",
        "npm_config_port": str(port),
        "npm_config_pidfile": str(folder / "pid"),
    }
    process = await asyncio.create_subprocess_exec(
        node,
        "server/server.mjs",
        cwd=SUITE,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            await process.stdout.readline()
        yield port
    finally:
        process.kill()
        await process.communicate()


async def run(node: str, folder: Path, options: dict[str, Any]) -> Results:
    """What came of each test."""
    folder.mkdir(exist_ok=True)
    async with origin(node, folder) as port:
        document = {
            "upstreams": {"origin": {"targets": [f"http://127.0.0.1:{port}"]}},
            "routes": [
                {"name": "all", "path": "/*", "upstream": "origin", "components": [{"cache": options}]}
            ],
        }
        async with gateway(folder, document) as one:
            process = await asyncio.create_subprocess_exec(
                node, "--no-warnings", RUN, SUITE, one.url, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
    results: Results = json.loads(out)
    return results


def score(results: Results) -> dict[str, int]:
    passed = Counter(result["kind"] for result in results.values() if result["passed"])
    return {kind: passed[kind] for kind in ("required", "optimal")}


def everybody_passes() -> set[str]:
    """What all well-known caches pass."""
    said = [json.loads((SUITE / "results" / f"{peer}.json").read_text()) for peer in PEERS]
    return {test for test in said[0] if all(each.get(test) is True for each in said)}


def falls_short(name: str, results: Results, held: dict[str, int]) -> list[str]:
    """What is worse than it was, or than in every other cache; then everything that does not pass."""
    now = score(results)
    failed = {test: each["why"] for test, each in results.items() if not each["passed"]}
    worse = [f"{now[kind]} {kind} tests pass, not {many}" for kind, many in held.items() if now[kind] < many]
    alone = sorted(everybody_passes() & failed.keys() - OURS.keys())
    worse += [f"all well-known caches pass {test}" for test in alone if results[test]["kind"] != "check"]
    return [f"{name}: {each}" for each in (*worse, *failed.items())] if worse else []


async def test_the_suite_passes_as_it_did(
    node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = json.loads(SCORE.read_text())
    worse: list[str] = []
    # The tests are a matter of seconds: a busy machine gets a second chance.
    for attempt in range(2):
        every = await asyncio.gather(
            *[run(node, tmp_path / f"{attempt}-{name}", options) for name, options in CACHES.items()]
        )
        worse = []
        for name, results in zip(CACHES, every, strict=True):
            worse += falls_short(name, results, held[name])
            many = Counter(result["kind"] for result in results.values())
            with capsys.disabled():
                print(
                    f"\nHTTP cache tests, {name}: "
                    + ", ".join(f"{now} of {many[kind]} {kind}" for kind, now in score(results).items())
                )
        if not worse:
            return
    pytest.fail("\n".join(worse))
