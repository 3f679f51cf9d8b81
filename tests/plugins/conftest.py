import pytest

from tests.plugins.kit import Hand, Upstreams


@pytest.fixture
def upstreams() -> Upstreams:
    return Upstreams()


@pytest.fixture
def clock() -> Hand:
    return Hand()
