"""Documents for gateways in processes of their own, and what it takes to reach them."""

from typing import Any

import httpx
import pytest

APPS = "tests.server.apps"


@pytest.fixture
def document() -> dict[str, Any]:
    """Everything goes to an app in the process of the gateway; `/other/*` to another one."""
    return {
        "upstreams": {"app": {"asgi": f"{APPS}:app"}, "other": {"asgi": f"{APPS}:other"}},
        "routes": [
            {"name": "all", "path": "/*", "upstream": "app"},
            {"name": "other", "path": "/other/*", "upstream": "other"},
        ],
    }


async def get(url: str, **options: Any) -> httpx.Response:
    """One request on a connection of its own."""
    async with httpx.AsyncClient(trust_env=False, timeout=20, **options) as client:
        return await client.get(url)
