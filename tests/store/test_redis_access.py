"""TLS, passwords and databases of Redis."""

from pathlib import Path

import pytest
import trustme

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.store import Store, StoreError
from asgi_gateway_contrib.redis import RedisStore
from tests.redis_server import is_installed, redis_server

pytestmark = pytest.mark.skipif(not is_installed(), reason="redis-server is not installed: scripts/setup")


def opened(url: str) -> Store:
    return RedisStore.open(url, timeout=5, now=lambda: 0)


async def test_password_and_database_are_taken_from_the_url(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "pass-4711") as server:
        one, two = (opened(f"redis://:pass-4711@127.0.0.1:{server.port}/{number}") for number in (1, 2))
        await one.set("a", b"1", 60)
        assert (await one.get("a"), await two.get("a")) == (b"1", None)
        wrong = opened(f"redis://:pass-4712@127.0.0.1:{server.port}")
        with pytest.raises(StoreError) as raised:
            await wrong.get("a")
        assert "4712" not in str(raised.value)
        for store in (one, two, wrong):
            await store.aclose()
            assert "pass" not in store.name


def test_tls_files_that_cannot_be_used_are_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    for name in ("gone.pem", "no.pem"):
        with pytest.raises(ConfigError, match="store: the TLS files that the URL names cannot be used"):
            Gateway.parse({"store": f"rediss://127.0.0.1:1/0?ssl_ca_certs={tmp_path / name}"})


async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"--tls-cert-file": "cert.pem", "--tls-key-file": "key.pem", "--tls-ca-cert-file": "ca.pem"}
    options = [word for option, file in files.items() for word in (option, str(tmp_path / file))]
    with redis_server(tmp_path, *options, "--tls-auth-clients", "no", tls=True) as server:
        place = f"rediss://127.0.0.1:{server.port}/0"
        trusting = opened(f"{place}?ssl_ca_certs={tmp_path / 'ca.pem'}")
        await trusting.set("a", b"1", 60)
        assert await trusting.get("a") == b"1"
        await trusting.aclose()
        strange = opened(place)
        with pytest.raises(StoreError):
            await strange.get("a")
        await strange.aclose()


def test_a_password_stands_in_no_dump() -> None:
    declared = {"store": "redis://user:pass-4711@127.0.0.1:1/0"}
    gateway = Gateway.parse(declared)
    assert "4711" not in repr(gateway.config)
    assert "4711" not in str(gateway.config.model_dump_json())
    assert gateway.config.store.url.get_secret_value() == declared["store"]
