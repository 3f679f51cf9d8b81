from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Response, Upstream, gateway_around
from asgi_gateway_plugins.body_limit import BodyLimit
from asgi_gateway_plugins.security_headers import SecurityHeaders
from tests.plugins.kit import Upstreams, document, handshake, serving

DEFAULTS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "x-frame-options": "SAMEORIGIN",
    "content-security-policy": "frame-ancestors 'self'",
}


def fields(response: Response) -> dict[str, str]:
    assert len(dict(response.headers)) == len(response.headers)
    return {name.decode(): value.decode() for name, value in response.headers}


async def test_an_answer_gets_these_fields() -> None:
    async with gateway_around(SecurityHeaders()) as client:
        assert fields(await client.get("/")) == DEFAULTS


async def test_only_over_https_browsers_are_told_to_stay_there() -> None:
    async with gateway_around(SecurityHeaders(), trusted_proxies=("127.0.0.1",)) as client:
        secure = await client.get("/", headers={"x-forwarded-proto": "https"})
        plain = await client.get("/", headers={"x-forwarded-proto": "http"})
        forged = await client.get("/", headers={"x-forwarded-proto": "https"}, client=("203.0.113.9", 1))
    assert secure.values("strict-transport-security") == ["max-age=31536000"]
    assert plain.values("strict-transport-security") == forged.values("strict-transport-security") == []


async def test_each_of_them_can_be_set_or_left_out() -> None:
    component = SecurityHeaders(
        content_type_options="",
        referrer_policy="no-referrer",
        frame_options="",
        content_security_policy="default-src 'self'",
        permissions_policy="camera=()",
        cross_origin_opener_policy="same-origin",
        cross_origin_resource_policy="same-site",
    )
    async with gateway_around(component) as client:
        assert fields(await client.get("/")) == {
            "referrer-policy": "no-referrer",
            "content-security-policy": "default-src 'self'",
            "permissions-policy": "camera=()",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-site",
        }


OWN = [
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'"),
    (b"content-security-policy", b"img-src *"),
    (b"server", b"apache/1.3"),
    (b"x-powered-by", b"PHP/4"),
    (b"x-kept", b"1"),
]


async def test_what_the_upstream_set_stays() -> None:
    async with gateway_around(SecurityHeaders(), upstream=Upstream(headers=OWN)) as client:
        answer = await client.get("/")
    assert answer.values("x-frame-options") == ["DENY"]
    assert answer.values("content-security-policy") == ["default-src 'none'", "img-src *"]
    assert answer.values("x-content-type-options") == ["nosniff"]


async def test_unless_it_is_to_be_overridden() -> None:
    async with gateway_around(SecurityHeaders(override=True), upstream=Upstream(headers=OWN)) as client:
        assert fields(await client.get("/")) == {"x-kept": "1", **DEFAULTS}


async def test_what_tells_too_much_is_removed() -> None:
    async with gateway_around(SecurityHeaders(), upstream=Upstream(headers=OWN)) as client:
        answer = await client.get("/")
    assert answer.values("server") == answer.values("x-powered-by") == []
    assert answer.values("x-kept") == ["1"]
    async with gateway_around(SecurityHeaders(remove=("X-Kept",)), upstream=Upstream(headers=OWN)) as client:
        answer = await client.get("/")
    assert (answer.values("server"), answer.values("x-kept")) == (["apache/1.3"], [])


async def test_refusals_and_failures_carry_them_too() -> None:
    around = (BodyLimit.model_validate({"max_size": "1B"}), SecurityHeaders())
    async with gateway_around(*around, upstream=Upstream(fails="head")) as client:
        answers = [await client.post("/", b"12"), await client.get("/")]
    assert [answer.status for answer in answers] == [413, 500]
    assert all(DEFAULTS.items() <= fields(answer).items() for answer in answers)


async def test_requests_without_a_route_get_them_too(upstreams: Upstreams) -> None:
    async with serving(upstreams, document(path="/here", components=["security_headers"])) as http:
        answer = await http.get("/nowhere")
    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_denied_handshake_carries_them(upstreams: Upstreams) -> None:
    declared = document("security_headers", "csrf", route={"websocket": True})
    sent = await handshake(Gateway.parse(declared, plugins=[upstreams]), headers=[(b"origin", b"null")])
    assert (b"x-frame-options", b"SAMEORIGIN") in sent[0]["headers"]


@pytest.mark.parametrize(
    "options",
    [
        {"referrer_policy": "a\r\nx: y"},
        {"frame_options": "é"},
        {"frame_options": " "},
        {"frame_options": "DENY "},
        {"permissions_policy": "x" * 5000},
        {"remove": ["Content-Length"]},
        {"remove": ["a b"]},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SecurityHeaders.model_validate(options)
