"""What all ways to sign a request have in common: why a signature does not count."""

from asgi_gateway.asgi import RETRY_SOON, Headers
from asgi_gateway.component import Refusal


class SignatureRefusals:
    """Why a signature does not count. Each way to sign adds its own reasons."""

    def __init__(self, challenge: Headers) -> None:
        """`challenge`: the fields of a 401 that say what is to be signed."""
        self._challenge = challenge
        self.missing = self.refusal("no_signature", "This request has to be signed.", missing=True)
        self.malformed = self.refusal("malformed_signature", "The signature cannot be read.")
        self.wrong = self.refusal("wrong_signature", "The signature does not fit the request.")
        self.replayed = self.refusal("replayed", "This signature was used before.")
        self.too_large = Refusal(413, "body_too_large", (), "The body is too large to be signed.")
        self.full = Refusal(503, "too_many_nonces", RETRY_SOON, "This caller signs too many requests.")

    def refusal(self, reason: str, detail: str, *, missing: bool = False) -> Refusal:
        return Refusal(401, reason, self._challenge, detail, missing=missing)
