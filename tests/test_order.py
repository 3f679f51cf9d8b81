"""The order of a chain, as a readable list."""

from asgi_gateway.config import Use
from asgi_gateway.folding import in_order
from asgi_gateway.gateway import Gateway
from asgi_gateway.plugins import Plugins
from asgi_gateway.stage import Stage

ORDER = [
    ("OBSERVE", "request_id"),
    ("OBSERVE", "access_log"),
    ("OBSERVE", "security_headers"),
    ("OBSERVE", "errors"),
    ("GUARD", "cors"),
    ("GUARD", "ip_filter"),
    ("GUARD", "maintenance"),
    ("GUARD", "early_rate_limit"),
    ("GUARD", "referer"),
    ("GUARD", "user_agent"),
    ("GUARD", "csrf"),
    ("GUARD", "body_limit"),
    ("AUTH", "all_of"),
    ("AUTH", "any_of"),
    ("AUTH", "basic_auth"),
    ("AUTH", "forward_auth"),
    ("AUTH", "http_signature"),
    ("AUTH", "jwt_auth"),
    ("AUTH", "key_auth"),
    ("AUTH", "mtls"),
    ("AUTH", "oauth2_introspection"),
    ("AUTH", "signature"),
    ("AUTH", "acl"),
    ("LIMIT", "rate_limit"),
    ("LIMIT", "concurrency"),
    ("LIMIT", "quota"),
    ("LIMIT", "websocket_limit"),
    ("TRANSFORM", "compress"),
    ("TRANSFORM", "envelope"),
    ("TRANSFORM", "redirect"),
    ("TRANSFORM", "decompress"),
    ("TRANSFORM", "validate"),
    ("TRANSFORM", "respond"),
    ("TRANSFORM", "headers"),
    ("TRANSFORM", "middleware"),
    ("TRANSFORM", "rewrite"),
    ("SPLIT", "mirror"),
    ("SPLIT", "canary"),
    ("CACHE", "idempotency"),
    ("CACHE", "cache"),
    ("RESCUE", "fallback"),
    ("RETRY", "retry"),
    ("PROTECT", "breaker"),
    ("PROTECT", "bulkhead"),
    ("PROTECT", "fault"),
]


def test_the_standard_components_stand_in_this_order() -> None:
    kinds = sorted(Plugins.installed().components.values(), key=lambda kind: kind.name)
    ordered = sorted(kinds, key=lambda kind: (kind.stage, kind.rank))
    assert [(kind.stage.name, kind.name) for kind in ordered] == ORDER


def test_the_listed_order_only_breaks_ties() -> None:
    gateway = Gateway.parse(
        {
            "upstreams": {
                "up": {"targets": ["http://127.0.0.1:1"]},
                "next": {"targets": ["http://127.0.0.1:2"]},
            },
            "routes": [
                {
                    "name": "all",
                    "path": "/*",
                    "upstream": "up",
                    "components": [
                        {"canary": {"upstream": "next", "percent": 5}},
                        {"headers": {"request": {"set": {"x-a": "1"}}}},
                        {"rate_limit": {"limit": "1/second", "mode": "report"}},
                        {"headers": {"request": {"set": {"x-b": "1"}}, "enabled": False}},
                        {"key_auth": {"when": {"path": "/private/*"}}},
                        "request_id",
                    ],
                }
            ],
        }
    )
    (plan,) = gateway.plan
    assert plan.chain == ("request_id", "key_auth [when]", "rate_limit [report]", "headers", "canary")
    headers = [use for use in gateway.config.routes[0].components if use.component.name == "headers"]
    assert in_order(headers) == [headers[0]]
    assert isinstance(headers[0], Use)


def test_stages_stand_on_routes_or_on_upstreams() -> None:
    both = [stage for stage in Stage if stage.on_routes and stage.on_upstreams]
    assert both == [Stage.TRANSFORM]
    assert all(stage.on_routes or stage.on_upstreams for stage in Stage)
