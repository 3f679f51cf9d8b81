"""The only place that knows TLS on the side of callers: the context, and the certificate of a caller."""

import asyncio
import ssl
from typing import Any

from ..config import ServerTLS
from ..errors import ConfigError, Problem
from ..files import read_whole


def server_context(tls: ServerTLS) -> ssl.SSLContext:
    """ConfigError with every file that cannot be used."""
    problems = [
        problem
        for field in ("certificate", "key", "client_ca")
        if (path := getattr(tls, field)) and (problem := unreadable(path, f"server.tls.{field}"))
    ]
    if problems:
        raise ConfigError(problems)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # HTTP/2 is not spoken here: say so to those who ask.
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=no_password)
    except ssl.SSLError as error:
        what = f"{tls.certificate} and {tls.key} are not a certificate and its key in PEM"
        raise ConfigError(Problem(f"{what}: {error.reason or error}", "server.tls")) from error
    if tls.client_ca:
        trust(context, tls.client_ca)
    return context


def trust(context: ssl.SSLContext, path: str) -> None:
    """Only callers with a certificate from these authorities come in."""
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        what = f"{path} holds no certificates in PEM"
        raise ConfigError(Problem(f"{what}: {error.reason or error}", "server.tls.client_ca")) from error


def unreadable(path: str, where: str) -> Problem | None:
    try:
        read_whole(path)
        return None
    except OSError as error:
        return Problem(f"{path} cannot be read: {error.strerror}", where)


def no_password() -> str:
    """Called for a key that is encrypted; without it OpenSSL would ask at the terminal."""
    raise ConfigError(
        Problem("the key is encrypted, and there is nobody to ask for its password", "server.tls.key")
    )


VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def shown(transport: asyncio.BaseTransport) -> dict[str, Any] | None:
    """What the TLS extension of ASGI says about a connection: the caller's certificate; None without TLS."""
    made = transport.get_extra_info("ssl_object")
    if made is None:
        return None
    certificate = made.getpeercert(True)
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": VERSIONS.get(made.version()),
        "cipher_suite": None,
    }
