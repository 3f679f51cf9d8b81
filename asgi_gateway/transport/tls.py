"""The only place that makes TLS contexts for targets."""

import ssl
from functools import cached_property

from ..config import UpstreamTLS


class ClientContext:
    """A TLS context, made when the first connection needs it (it costs some 20 ms) and shared by equal
    options.
    """

    def __init__(self, options: UpstreamTLS) -> None:
        self._options = options

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
