import ssl
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trustme
from cryptography import x509
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Upstreams, document, handshake, serving
from tests.processes import gateway

AUTHORITY = trustme.CA()
CLIENT = AUTHORITY.issue_cert("caller.test", common_name="caller", organization_name="Acme")
PEM = CLIENT.cert_chain_pems[0].bytes().decode()
PRINT = sha256(ssl.PEM_cert_to_DER_cert(PEM)).hexdigest()
SUBJECT = x509.load_pem_x509_certificate(PEM.encode()).subject.rfc4514_string()
COLONS = ":".join(PRINT[place : place + 2].upper() for place in range(0, 64, 2))


def consumers(*certificates: str) -> list[dict[str, Any]]:
    return [{"name": "acme", "certificates": list(certificates)}, {"name": "CN=acme"}]


def behind_proxy(*certificates: str, trusted: bool = True, **options: Any) -> dict[str, Any]:
    return document(
        {"mtls": {"header": "x-client-cert", **options}},
        consumers=consumers(*(certificates or (PRINT,))),
        route={"websocket": True},
        trusted_proxies=["203.0.113.0/24"] if trusted else [],
    )


FORMATS = {
    "xfcc": f'By=spiffe://a;Hash={PRINT};Subject="CN=x;,y";URI=spiffe://b',
    "xfcc of two proxies": f'Hash={"0" * 64};Subject="CN=root",By=x;Hash={PRINT}',
    "fingerprint": COLONS,
    "fingerprint in small letters": PRINT,
    "pem": quote(PEM),
    "subject": SUBJECT,
}


@pytest.mark.parametrize("what", FORMATS)
async def test_a_trusted_proxy_says_the_certificate(upstreams: Upstreams, what: str) -> None:
    declared = behind_proxy(PRINT, SUBJECT, format=what.partition(" ")[0])
    async with serving(upstreams, declared) as http:
        headers = {"X-Client-Cert": FORMATS[what], "x-consumer": "root"}
        assert (await http.get("/", headers=headers)).status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers("x-client-cert") == []


@pytest.mark.parametrize("what", FORMATS)
async def test_nobody_else_can_say_it(upstreams: Upstreams, what: str) -> None:
    declared = behind_proxy(PRINT, SUBJECT, trusted=False, format=what.partition(" ")[0])
    async with serving(upstreams, declared) as http:
        answer = await http.get("/", headers={"X-Client-Cert": FORMATS[what]})
    assert (answer.status_code, answer.json()["reason"]) == (403, "no_certificate")
    assert "www-authenticate" not in answer.headers
    assert upstreams.seen == []


@pytest.mark.parametrize("name", ["X-Client-Cert", "X_Client_Cert"])
@pytest.mark.parametrize("way", ["report", "any_of", "elsewhere"])
async def test_what_somebody_else_says_goes_nowhere(upstreams: Upstreams, way: str, name: str) -> None:
    """An upstream may believe that the gateway has looked at it."""
    mtls: dict[str, Any] = {"mtls": {"header": "x-client-cert"}}
    ways: dict[str, list[Any]] = {
        "report": [{"mtls": {**mtls["mtls"], "mode": "report"}}],
        "any_of": [{"any_of": {"of": [mtls, "key_auth"]}}],
        "elsewhere": [],
    }
    declared = document(*ways[way], consumers=[{"name": "acme", "keys": ["acme-key"]}])
    declared["routes"].append({"name": "mtls", "path": "/mtls", "upstream": "main", "components": [mtls]})
    for trusted in ([], ["10.0.0.0/8"]):
        async with serving(upstreams, {**declared, "trusted_proxies": trusted}) as http:
            headers = {name: f"Hash={PRINT}", "x-api-key": "acme-key"}
            assert (await http.get("/", headers=headers)).status_code == 200
        assert upstreams.headers("x-client-cert") == upstreams.headers("x_client_cert") == []


@pytest.mark.parametrize(
    ("form", "fields", "reason"),
    [
        ("xfcc", [], "no_certificate"),
        ("xfcc", [""], "no_certificate"),
        ("xfcc", [f"Hash={PRINT}", f"Hash={PRINT}"], "several_certificates"),
        ("xfcc", ["x" * 20_000], "bad_certificate"),
        ("xfcc", ["nonsense"], "bad_certificate"),
        ("xfcc", [f"Hash={PRINT};Hash={'0' * 64}"], "bad_certificate"),
        ("xfcc", [f'By="Hash={PRINT}"'], "bad_certificate"),
        ("xfcc", [f"Hash={PRINT},Hash={'0' * 64}"], "unknown_certificate"),
        ("xfcc", [f'Hash={"0" * 64};Subject="a\\";Hash={PRINT}"'], "unknown_certificate"),
        ("fingerprint", [PRINT[:-1]], "bad_certificate"),
        ("fingerprint", ["0" * 64], "unknown_certificate"),
        ("pem", ["-----BEGIN CERTIFICATE-----"], "bad_certificate"),
        ("pem", [quote(AUTHORITY.cert_pem.bytes().decode())], "unknown_certificate"),
        ("subject", [SUBJECT.lower()], "unknown_certificate"),
    ],
)
async def test_what_is_no_certificate_of_a_consumer_is_refused(
    upstreams: Upstreams, form: str, fields: list[str], reason: str
) -> None:
    async with serving(upstreams, behind_proxy(PRINT, SUBJECT, format=form)) as http:
        answer = await http.get("/", headers=[("x-client-cert", field) for field in fields])
    assert (answer.status_code, answer.json()["reason"]) == (403, reason)


async def test_a_subject_may_be_a_caller_but_no_consumer(upstreams: Upstreams) -> None:
    declared = behind_proxy(PRINT, format="subject", only_consumers=False)
    async with serving(upstreams, declared) as http:
        assert (await http.get("/", headers={"x-client-cert": "CN=other"})).status_code == 200
        assert upstreams.headers("x-consumer") == ["CN=other"]
        assert (await http.get("/", headers={"x-client-cert": "CN=acme"})).status_code == 403


async def test_a_certificate_ends(upstreams: Upstreams, clock: Any) -> None:
    async with serving(upstreams, behind_proxy(format="pem"), clock) as http:
        for seconds, status in ((1000.0, 200), (1e11, 403), (-1.6e9, 403)):
            clock.seconds = seconds
            answer = await http.get("/", headers={"x-client-cert": quote(PEM)})
            assert answer.status_code == status, answer.text


async def test_reporting_lets_pass(upstreams: Upstreams) -> None:
    async with serving(upstreams, behind_proxy(mode="report")) as http:
        assert (await http.get("/", headers={"x-consumer": "root"})).status_code == 200
    assert upstreams.headers("x-consumer") == []


async def test_a_websocket_needs_a_certificate_too(upstreams: Upstreams) -> None:
    running = Gateway.parse(behind_proxy(), plugins=[upstreams])
    refused = await handshake(running)
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 403)
    shown = [(b"x-client-cert", f"Hash={PRINT}".encode())]
    assert (await handshake(running, headers=shown))[0]["type"] == "websocket.accept"


# From the server itself


async def who(scope: Any, receive: Any, send: Any) -> None:
    """An upstream that says who is calling."""
    name = dict(scope["headers"]).get(b"x-consumer", b"nobody")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": name})
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": name})


@pytest.mark.parametrize("certificate", [PRINT, SUBJECT], ids=["fingerprint", "subject"])
async def test_the_server_says_the_certificate_of_the_connection(tmp_path: Path, certificate: str) -> None:
    served = AUTHORITY.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("certificate", "key", "client_ca")}
    served.cert_chain_pems[0].write_to_path(files["certificate"])
    served.private_key_pem.write_to_path(files["key"])
    AUTHORITY.cert_pem.write_to_path(files["client_ca"])
    declared = {
        "server": {"tls": files},
        "consumers": consumers(certificate),
        "upstreams": {"who": {"asgi": f"{__name__}:who"}},
        "routes": [
            {"name": "all", "path": "/*", "upstream": "who", "websocket": True, "components": ["mtls"]}
        ],
    }
    known, stranger = ssl.create_default_context(), ssl.create_default_context()
    for context, shown in ((known, CLIENT), (stranger, AUTHORITY.issue_cert("stranger.test"))):
        AUTHORITY.configure_trust(context)
        shown.configure_cert(context)
    async with gateway(tmp_path, declared) as one:
        for context, expected in ((known, (200, "acme")), (stranger, (403, "unknown_certificate"))):
            async with httpx.AsyncClient(verify=context) as http:
                # Twice on one connection, and with trailers, which are another set of extensions.
                for headers in ({}, {"te": "trailers", "connection": "te", "x-consumer": "root"}):
                    answer = await http.get(one.url + "/", headers=headers)
                    told = answer.text if answer.status_code == 200 else answer.json()["reason"]
                    assert (answer.status_code, told) == expected
        place = one.url.replace("https", "wss")
        async with connect(place, ssl=known) as socket:
            assert await socket.recv() == b"acme"
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(place, ssl=stranger):
                pass
