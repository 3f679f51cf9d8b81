"""A gateway inside a FastAPI application.

uvicorn --no-proxy-headers --no-server-header --no-date-header --app-dir examples mount_fastapi:app
curl -i http://127.0.0.1:8000/api/hi
"""

from fastapi import FastAPI

from asgi_gateway.gateway import Gateway

service = FastAPI()
gateway = Gateway.parse(
    {
        "upstreams": {"service": {"asgi": f"{__name__}:service"}},
        "components": ["request_id", {"rate_limit": {"limit": "5/minute", "by": "ip"}}],
        "routes": [{"name": "service", "path": "/*", "upstream": "service"}],
    }
)
app = FastAPI(lifespan=gateway.lifespan)


@service.get("/hi")
async def hi() -> dict[str, str]:
    return {"said": "hi"}


@app.get("/own")
async def own() -> dict[str, str]:
    """Not the gateway's: the application answers itself."""
    return {"said": "own"}


app.mount("/api", gateway)
