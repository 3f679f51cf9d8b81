"""`python -m asgi_gateway` is `asgi-gateway`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="asgi-gateway")
