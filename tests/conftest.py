import asyncio
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, is_installed, redis_server

close_loop = BaseSelectorEventLoop.close


def close_with_connections(loop: BaseSelectorEventLoop) -> None:
    """A connection that a test has left ends with its loop. Its warning would come whenever memory is
    collected, and fail another test. What the gateway leaves is looked for by tests that count open files.
    """
    left = [] if loop.is_closed() else [each for each in loop._transports.values() if each._sock is not None]
    for transport in left:
        transport.abort()
    if left:
        loop.run_until_complete(asyncio.sleep(0))
    close_loop(loop)


BaseSelectorEventLoop.close = close_with_connections  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def redis_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if not is_installed():
        pytest.skip("redis-server is not installed: scripts/setup")
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_of_session: RedisServer) -> RedisServer:
    """A Redis that runs and is empty; a test may kill and freeze it."""
    redis_of_session.thaw()
    redis_of_session.kill()
    redis_of_session.start()
    return redis_of_session
