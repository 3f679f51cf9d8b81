"""Where to listen: what the file says, and what the command line says instead."""

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.server.listening import address, close, open_sockets, places


@pytest.mark.parametrize(
    ("listen", "host", "port", "expected"),
    [
        ("127.0.0.1:8000", None, None, "127.0.0.1:8000"),
        ("127.0.0.1:8000", "0.0.0.0", None, "0.0.0.0:8000"),
        ("127.0.0.1:8000", None, 0, "127.0.0.1:0"),
        ("[::1]:8000", None, 81, "[::1]:81"),
        ("[::1]:8000", "::", 81, "[::]:81"),
        ("[::1]:8000", "[::]", None, "[::]:8000"),
        ("unix:/run/gateway.sock", None, None, "unix:/run/gateway.sock"),
        ("unix:/run/gateway.sock", "localhost", None, "localhost:8000"),
        ("unix:/run/gateway.sock", None, 81, "127.0.0.1:81"),
    ],
)
def test_host_and_port_replace_what_the_file_says(
    listen: str, host: str | None, port: int | None, expected: str
) -> None:
    assert address(listen, host, port) == expected


def test_all_addresses_of_a_name_share_one_free_port() -> None:
    sockets = open_sockets("localhost:0", 10)
    try:
        assert len({opened.getsockname()[1] for opened in sockets}) == 1
        assert places(sockets, "https").count("https://") == len(sockets)
    finally:
        close(sockets)


def test_a_host_that_nobody_knows_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"server\.listen: nobody\.invalid:80 cannot be listened on: "):
        open_sockets("nobody.invalid:80", 10)


def test_an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0 cannot be listened on: "):
        open_sockets("192.0.2.1:0", 10)


def test_a_folder_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="cannot be listened on: No such file"):
        open_sockets("unix:/nowhere/gateway.sock", 10)
