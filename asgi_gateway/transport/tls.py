"""The only place that makes TLS contexts for targets."""

import ssl
from collections.abc import Callable
from functools import cached_property, partial

from ..config import UpstreamTLS
from ..errors import Problem
from ..files import read_whole


class ClientContext:
    """A TLS context, made when the first connection needs it (it costs some 20 ms) and shared by equal
    options.
    """

    def __init__(self, options: UpstreamTLS) -> None:
        self._options = options

    def check(self) -> list[Problem]:
        """Every file that cannot be used."""
        options, bare = self._options, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        problems = []
        if options.ca:
            problems += tried("tls.ca", [options.ca], lambda: bare.load_verify_locations(options.ca))
        if options.certificate:
            files = list(filter(None, (options.certificate, options.key)))
            load = partial(bare.load_cert_chain, options.certificate, options.key or None, no_password)
            problems += tried("tls.certificate", files, load)
        return problems

    @cached_property
    def context(self) -> ssl.SSLContext:
        options = self._options
        context = ssl.create_default_context(cafile=options.ca or None)
        context.set_alpn_protocols(["http/1.1"])
        if not options.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.certificate:
            context.load_cert_chain(options.certificate, options.key or None)
        return context

    def __call__(self) -> ssl.SSLContext:
        return self.context


def tried(where: str, files: list[str], load: Callable[[], None]) -> list[Problem]:
    what = " and ".join(files)
    try:
        for file in files:
            read_whole(file)
        load()
    except ssl.SSLError as error:
        return [Problem(f"{what} cannot be used: {error.reason or error}", where, "files in PEM are needed")]
    except (OSError, ValueError) as error:
        return [Problem(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}", where)]
    return []


def no_password() -> str:
    """Called for a key that is encrypted; without it OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")
