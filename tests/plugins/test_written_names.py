"""Fields that components write by themselves never frame or address a message."""

from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway

JWT = {"keys": [{"algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef"}], "audience": ["a"]}


@pytest.mark.parametrize("name", ["content-length", "Transfer_Encoding", "host", "connection"])
@pytest.mark.parametrize(
    ("component", "options", "key"),
    [
        ("request_id", {}, "header"),
        ("key_auth", {}, "consumer_header"),
        ("basic_auth", {}, "consumer_header"),
        ("jwt_auth", JWT, "claim_headers"),
        ("forward_auth", {"url": "http://auth.test/"}, "upstream_headers"),
        ("mirror", {"upstream": "api", "percent": 1}, "header"),
        ("canary", {"upstream": "api", "percent": 1}, "label_header"),
    ],
)
def test_a_framing_field_is_refused_at_start(
    component: str, options: dict[str, Any], key: str, name: str
) -> None:
    told: Any = {"claim_headers": {name: "sub"}, "upstream_headers": [name]}.get(key, name)
    with pytest.raises(ConfigError, match="says how a message is sent"):
        Gateway.parse(
            {
                "upstreams": {"api": {"targets": ["http://127.0.0.1:9"]}},
                "routes": [
                    {
                        "name": "all",
                        "path": "/*",
                        "upstream": "api",
                        "components": [{component: {**options, key: told}}],
                    }
                ],
            }
        )
