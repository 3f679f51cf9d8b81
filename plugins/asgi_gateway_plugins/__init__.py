"""The standard components. They come through the same door as anybody's."""

from collections.abc import Iterable

from asgi_gateway.component import Component
from asgi_gateway.hookspecs import hookimpl

from .access_log import AccessLog
from .acl import Acl
from .all_of import AllOf
from .any_of import AnyOf
from .basic_auth import BasicAuth
from .body_limit import BodyLimit
from .breaker import Breaker
from .bulkhead import Bulkhead
from .cache import Cache
from .canary import Canary
from .compress import Compress
from .concurrency import Concurrency
from .cors import Cors
from .csrf import Csrf
from .decompress import Decompress
from .early_rate_limit import EarlyRateLimit
from .envelope import Envelope
from .errors import Errors
from .fallback import Fallback
from .fault import Fault
from .forward_auth import ForwardAuth
from .headers import Headers
from .idempotency import Idempotency
from .ip_filter import IpFilter
from .jwt_auth import JwtAuth
from .key_auth import KeyAuth
from .maintenance import Maintenance
from .middleware import Middleware
from .mirror import Mirror
from .mtls import Mtls
from .oauth2_introspection import OAuth2Introspection
from .quota import Quota
from .rate_limit import RateLimit
from .redirect import Redirect
from .referer import Referer
from .request_id import RequestId
from .respond import Respond
from .retry import Retry
from .rewrite import Rewrite
from .security_headers import SecurityHeaders
from .signature import Signature
from .user_agent import UserAgent
from .websocket_limit import WebsocketLimit


@hookimpl
def gateway_components() -> Iterable[type[Component]]:
    return (
        RequestId,
        AccessLog,
        SecurityHeaders,
        Errors,
        Cors,
        IpFilter,
        Maintenance,
        UserAgent,
        Referer,
        Csrf,
        EarlyRateLimit,
        BodyLimit,
        AnyOf,
        AllOf,
        KeyAuth,
        BasicAuth,
        JwtAuth,
        OAuth2Introspection,
        Signature,
        Mtls,
        ForwardAuth,
        Acl,
        RateLimit,
        Quota,
        Concurrency,
        WebsocketLimit,
        Compress,
        Envelope,
        Redirect,
        Decompress,
        Respond,
        Headers,
        Rewrite,
        Mirror,
        Canary,
        Idempotency,
        Cache,
        Middleware,
        Fallback,
        Retry,
        Breaker,
        Bulkhead,
        Fault,
    )
