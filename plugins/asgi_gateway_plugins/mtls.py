"""Client certificates: who has shown one of a consumer when the connection was made is that consumer."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import unquote

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, extension
from asgi_gateway.component import Build, Refusal
from asgi_gateway.consumers import Consumer, Consumers, Principal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

from .authentication import Authentication, fields_of, missing_extra, principals
from .fields import NoHeader

LONGEST = 16 * 1024
REMEMBERED = 1000
"""Certificates that are not read again."""
PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"]*)([;,]|$)')
FOREVER = float("inf")

# There is no challenge for certificates (RFC 9110 11.6.1 wants one with each 401): it is 403.
NONE = Refusal(403, "no_certificate", (), "This request needs a client certificate.", missing=True)
SEVERAL = Refusal(403, "several_certificates", (), "There is more than one certificate.")
UNREADABLE = Refusal(403, "bad_certificate", (), "The certificate cannot be read.")
EXPIRED = Refusal(403, "certificate_expired", (), "The certificate is not valid now.")
UNKNOWN = Refusal(403, "unknown_certificate", (), "Nobody has this certificate.")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known about a certificate. Texts that are not known are empty."""

    fingerprint: str = ""
    subject: str = ""
    begins: float = 0.0
    ends: float = FOREVER


class Mtls(
    Authentication, name="mtls", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Identifies the caller by a client certificate that the server or a trusted proxy has checked."""

    header: NoHeader = ""
    """The field in which a trusted proxy says the certificate. Empty: it comes from the server itself."""
    format: Literal["xfcc", "pem", "fingerprint", "subject"] = "xfcc"
    """What stands in it: X-Forwarded-Client-Cert, PEM (also percent-encoded), a fingerprint, or a subject."""
    only_consumers: bool = True
    """Whether only those may come who have it among their `certificates`; else the subject is the caller."""

    def forwarded(self) -> tuple[str, ...]:
        return (self.header,) if self.header else ()

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, consumers, time = build.refuse(app), build.consumers, build.clock.time
        show = self.shown()
        identify = self.identifier(*([self.header] if self.header else []))
        principal = principals("mtls")

        async def mtls(scope: Scope, receive: Receive, send: Send) -> None:
            found = show(scope)
            if isinstance(found, Refusal):
                await refuse(scope, receive, send, found)
                return
            if not found.begins <= time() < found.ends:
                await refuse(scope, receive, send, EXPIRED)
                return
            consumer = owner(found, consumers)
            if consumer is not None:
                await app(identify(scope, principal(consumer)), receive, send)
            elif self.only_consumers or not found.subject or consumers.get(found.subject) is not None:
                await refuse(scope, receive, send, UNKNOWN)
            else:
                await app(identify(scope, Principal(found.subject, "mtls")), receive, send)

        return mtls

    def shown(self) -> Callable[[Scope], Certificate | Refusal]:
        """The function that finds the certificate of a request."""
        if not self.header:
            return from_server(Reader())
        name = self.header.encode()
        read = {"xfcc": read_xfcc, "fingerprint": read_fingerprint, "subject": read_subject}.get(self.format)
        reader = Reader() if read is None else None

        def show(scope: Scope) -> Certificate | Refusal:
            exchange: Exchange = scope[EXCHANGE]
            fields = fields_of(scope, name)
            # Anybody can write a field: only what a trusted peer says counts.
            if not exchange.trusted or not fields or not fields[0]:
                return NONE
            if len(fields) > 1:
                return SEVERAL
            if len(fields[0]) > LONGEST:
                return UNREADABLE
            text = fields[0].decode("latin-1")
            if read is not None:
                return read(text) or UNREADABLE
            assert reader is not None
            return reader.read(unquote(text).replace("\t", "\n")) or UNREADABLE

        return show


def owner(certificate: Certificate, consumers: Consumers) -> Consumer | None:
    """Whose certificate this is: the fingerprint goes before the subject, which any authority may write."""
    for text in (certificate.fingerprint, certificate.subject):
        if text and (consumer := consumers.with_certificate(text)) is not None:
            return consumer
    return None


def from_server(reader: "Reader") -> Callable[[Scope], Certificate | Refusal]:
    """What the TLS extension of ASGI says."""

    def show(scope: Scope) -> Certificate | Refusal:
        told = extension(scope, "tls")
        chain = told.get("client_cert_chain") if told is not None else None
        if told is None or not chain:
            return NONE
        if told.get("client_cert_error"):
            return UNREADABLE
        return reader.read(next(iter(chain))) or UNREADABLE

    return show


class Reader:
    """Reads certificates, each once."""

    def __init__(self) -> None:
        try:
            from cryptography.x509 import load_pem_x509_certificate
        except ImportError:
            raise missing_extra("mtls", "cryptography") from None
        self._load: Any = load_pem_x509_certificate
        self._known: dict[str, Certificate | None] = {}

    def read(self, pem: str) -> Certificate | None:
        if pem not in self._known:
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[pem] = self._read(pem)
        return self._known[pem]

    def _read(self, pem: str) -> Certificate | None:
        from cryptography.hazmat.primitives.serialization import Encoding

        try:
            loaded = self._load(pem.encode())
            begins: datetime = loaded.not_valid_before_utc
            ends: datetime = loaded.not_valid_after_utc
            return Certificate(
                sha256(loaded.public_bytes(Encoding.DER)).hexdigest(),
                loaded.subject.rfc4514_string(),
                begins.timestamp(),
                ends.timestamp(),
            )
        except (ValueError, TypeError):
            return None


def read_xfcc(text: str) -> Certificate | None:
    """The last element: what the proxy next to us has seen; those before it are what others said."""
    pairs: dict[str, str] = {}
    position, ended = 0, False
    while position < len(text):
        found = PAIR.match(text, position)
        if found is None:
            return None
        if ended:
            pairs, ended = {}, False
        name, value = found[1].lower(), found[2]
        if name in ("hash", "subject") and name in pairs:
            return None
        pairs[name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        ended, position = found[3] == ",", found.end()
    certificate = Certificate(pairs.get("hash", ""), pairs.get("subject", ""))
    return certificate if certificate.fingerprint or certificate.subject else None


def read_fingerprint(text: str) -> Certificate | None:
    return Certificate(fingerprint=text) if re.fullmatch("(?:[0-9A-Fa-f]{2}:?){32}", text) else None


def read_subject(text: str) -> Certificate | None:
    return Certificate(subject=text)
