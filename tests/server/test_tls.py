"""A gateway that speaks TLS itself."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.processes import asgi_gateway, gateway, write

from .conftest import get

Document = dict[str, Any]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> dict[str, str]:
    """Certificate, key and the authority of both sides, as a `tls` section."""
    issued = authority.issue_cert("127.0.0.1")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("certificate", "key", "client_ca")}
    issued.cert_chain_pems[0].write_to_path(paths["certificate"])
    issued.private_key_pem.write_to_path(paths["key"])
    authority.cert_pem.write_to_path(paths["client_ca"])
    return paths


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_https_is_served(
    tmp_path: Path, document: Document, files: dict[str, str], authority: trustme.CA, workers: str
) -> None:
    del files["client_ca"]
    async with gateway(tmp_path, {**document, "server": {"tls": files}}, "--workers", workers) as one:
        assert one.url.startswith("https://127.0.0.1:")
        assert (await get(one.url + "/a", verify=trusting(authority))).text == "/a "
        assert await one.stop() == 0


async def test_a_client_authority_lets_in_only_callers_with_its_certificates(
    tmp_path: Path, document: Document, files: dict[str, str], authority: trustme.CA
) -> None:
    async with gateway(tmp_path, {**document, "server": {"tls": files}}) as one:
        with pytest.raises(httpx.TransportError):
            await get(one.url + "/a", verify=trusting(authority))
        stranger = trusting(authority)
        trustme.CA().issue_cert("caller").configure_cert(stranger)
        with pytest.raises(httpx.TransportError):
            await get(one.url + "/a", verify=stranger)
        known = trusting(authority)
        authority.issue_cert("caller").configure_cert(known)
        assert (await get(one.url + "/a", verify=known)).text == "/a "


async def test_an_answer_that_breaks_off_has_no_clean_end_over_tls(
    tmp_path: Path, document: Document, files: dict[str, str], authority: trustme.CA
) -> None:
    del files["client_ca"]
    async with gateway(tmp_path, {**document, "server": {"tls": files}}) as one:
        with pytest.raises(httpx.TransportError):
            await get(one.url + "/break", verify=trusting(authority))
        one.err.clear()  # the traceback of the app that broke


async def test_files_that_cannot_be_used_are_sentences(
    tmp_path: Path, document: Document, files: dict[str, str]
) -> None:
    async def refused(tls: dict[str, str]) -> list[str]:
        file = write(tmp_path / "gateway.yaml", {**document, "server": {"tls": tls}})
        ended = await asgi_gateway("run", str(file))
        assert ended.process.returncode == 1
        return ended.err

    gone = {"certificate": "/gone.pem", "key": "/lost.pem"}
    assert await refused(gone) == [
        "server.tls.certificate: /gone.pem cannot be read: No such file or directory",
        "server.tls.key: /lost.pem cannot be read: No such file or directory",
    ]
    (line,) = await refused({**files, "key": files["client_ca"]})
    assert "are not a certificate and its key in PEM" in line
    (line,) = await refused({**files, "client_ca": files["key"]})
    assert "holds no certificates in PEM" in line


async def test_callers_who_never_shake_hands_are_sent_away_and_count_as_connections(
    tmp_path: Path, document: Document, files: dict[str, str], authority: trustme.CA
) -> None:
    del files["client_ca"]
    document["server"] = {"tls": files, "limits": {"head": "500ms", "connections": 4}}
    async with gateway(tmp_path, document) as one:
        silent = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(30)]
        # There is room again when their time is over; nobody waits for their last one.
        assert (await get(one.url + "/a", verify=trusting(authority))).text == "/a "
        for reader, writer in silent:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert len(one.err) <= 2, one
        assert await one.stop() == 0
