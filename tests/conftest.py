from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, is_installed, redis_server


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
