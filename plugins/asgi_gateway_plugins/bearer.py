"""Bearer tokens (RFC 6750): where they stand in a request, and what their claims mean."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from re import fullmatch
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, field_validator

from asgi_gateway.asgi import Headers, Scope
from asgi_gateway.component import Refusal
from asgi_gateway.config.model import Pairs
from asgi_gateway.consumers import Consumers, Principal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.units import Size, Time

from .authentication import Authentication, Realm, dig
from .credentials import cookie_pairs, cookies_without, query_pairs, query_without
from .fields import TOKEN, HeaderName, read_written, spellings, value

T = TypeVar("T")
Find = Callable[[Scope], bytes | Refusal]
Enter = Callable[[Scope, "Granted"], Scope]
Judge = Callable[[Mapping[str, Any], float], "Granted | Refusal"]

FAR = 1e11
"""Seconds since 1970 past which no time of a claim lies."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a token gives: who is calling, the fields that tell the upstream, and until when."""

    principal: Principal
    fields: Headers
    until: float


class Bearer(Authentication):
    """The options of components that look at tokens."""

    header: HeaderName = "authorization"
    """The field in which a token is looked for, as `Bearer TOKEN`."""
    query: tuple[str, ...] = ()
    """Query parameters in which a token is looked for. Mind that URLs are logged in many places."""
    cookies: tuple[str, ...] = ()
    """Cookies in which a token is looked for."""
    hide: bool = False
    """Whether the token is removed from the request that goes upstream."""
    max_token: Annotated[Size, Field(ge=1)] = 8192
    """The longest token that is looked at."""
    audience: tuple[str, ...] = ()
    """One of these has to be in `aud`. None given: a token for anybody is taken."""
    scopes: tuple[str, ...] = ()
    """Scopes that a token needs; 403 without them."""
    match: Literal["all", "any"] = "all"
    """Whether it needs all of `scopes`, or one of them."""
    scopes_claim: tuple[str, ...] = ("scope", "scp")
    """Claims that may hold the scopes, as a list or as a text with spaces; the first that is there counts."""
    consumer_claim: Annotated[str, Field(min_length=1)] = "sub"
    """The claim that says who is calling; a path with dots for one inside of others."""
    only_consumers: bool = False
    """Whether only those may come whom a consumer has among its `subjects`."""
    groups_claim: str = ""
    """The claim with groups of the caller; a path with dots, as in `realm_access.roles`. Empty: none."""
    claim_headers: Pairs = ()
    """Fields that tell the upstream claims: `{x-email: email}`. A caller's own are always removed."""
    leeway: Time = 5.0
    """How far the clock of the issuer may be off."""
    realm: Realm = "gateway"
    """What the challenge calls this place."""

    @field_validator("claim_headers")
    @classmethod
    def are_names(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for name, _ in pairs:
            if not fullmatch(TOKEN, name):
                raise ValueError(f"{name!r} is not the name of a field")
            read_written(name.lower())
        return tuple((name.lower(), claim) for name, claim in pairs)

    def owns(self) -> tuple[str, ...]:
        return (*super().owns(), *(name for name, _ in self.claim_headers))

    # What the caller is told

    def challenge(self, error: str = "", **more: str) -> Headers:
        """RFC 6750 3: no error where there was no token."""
        parts = {"realm": self.realm, **({"error": error} if error else {}), **more}
        text = ", ".join(f'{name}="{part}"' for name, part in parts.items())
        return ((b"www-authenticate", f"Bearer {text}".encode()),)

    def invalid(self, reason: str, detail: str) -> Refusal:
        return Refusal(401, reason, self.challenge("invalid_token"), detail)

    # Where tokens stand

    def finder(self) -> Find:
        """The function that finds the one token of a request."""
        name, longest = self.header.encode(), self.max_token
        # Elsewhere a token may stand alone.
        bare = name != b"authorization"
        parameters = frozenset(each.encode() for each in self.query)
        cookies = frozenset(each.encode() for each in self.cookies)
        missing = Refusal(401, "no_token", self.challenge(), "This request needs a token.", missing=True)
        several = Refusal(
            401, "several_tokens", self.challenge("invalid_request"), "There is more than one token."
        )
        too_long = self.invalid("token_too_long", "The token is too long.")

        def find(scope: Scope) -> bytes | Refusal:
            token = b""
            fields = [text for key, text in scope["headers"] if key == name]
            if fields:
                if len(fields) > 1:
                    return several
                if fields[0][:7].lower() == b"bearer ":
                    token = fields[0][7:].strip(b" ")
                elif bare:
                    token = fields[0]
            if parameters or cookies:
                others = {*elsewhere(scope), *([token] if token else ())}
                if len(others) > 1:
                    return several
                token = others.pop() if others else b""
            if not token:
                return missing
            return token if len(token) <= longest else too_long

        def elsewhere(scope: Scope) -> set[bytes]:
            found = {text for (key, text), _ in query_pairs(scope["query_string"]) if key in parameters}
            lines = [line for key, line in scope["headers"] if key == b"cookie"] if cookies else []
            pairs = [pair for line in lines for pair, _ in cookie_pairs(line)]
            return found | {text for key, text in pairs if key in cookies}

        return find

    def enterer(self) -> Enter:
        """The function that notes who is calling, and copies the scope with what the upstream is told."""
        names = [*self.owns(), *([self.header] if self.hide else [])]
        gone = frozenset(spelling for name in names for spelling in spellings(name))
        parameters = frozenset(name.encode() for name in self.query if self.hide)
        cookies = frozenset(name.encode() for name in self.cookies if self.hide)

        def enter(scope: Scope, granted: Granted) -> Scope:
            exchange: Exchange = scope[EXCHANGE]
            exchange.principal = granted.principal
            headers = [pair for pair in scope["headers"] if pair[0] not in gone]
            if cookies:
                headers = cookies_without(headers, cookies)
            headers += granted.fields
            inner = {**scope}
            inner["headers"] = headers
            if parameters:
                inner["query_string"] = query_without(scope["query_string"], parameters)
            return inner

        return enter

    # What claims mean

    def judge(self, consumers: Consumers, issuer: str = "", longest: float | None = None) -> Judge:
        """The function that reads claims, at a time. `longest`: seconds that a token may live, if bounded."""
        leeway, audience, wanted = self.leeway, frozenset(self.audience), frozenset(self.scopes)
        every, who = self.match == "all", self.consumer_claim.split(".")
        odd = self.invalid("bad_claims", "A claim of the token is missing, or not what it should be.")
        expired = self.invalid("token_expired", "The token has expired.")
        early = self.invalid("token_early", "The token is not valid yet.")
        wrong_issuer = self.invalid("wrong_issuer", "The token is of another issuer.")
        wrong_audience = self.invalid("wrong_audience", "The token is for somebody else.")
        unknown = Refusal(403, "unknown_caller", (), "Nobody knows this caller here.")
        narrow = Refusal(
            403,
            "insufficient_scope",
            self.challenge("insufficient_scope", scope=" ".join(self.scopes)),
            "The token does not allow this.",
        )

        def judge(claims: Mapping[str, Any], now: float) -> Granted | Refusal:
            ends, begins, made = claims.get("exp"), claims.get("nbf"), claims.get("iat")
            if not all(claim is None or is_time(claim) for claim in (ends, begins, made)):
                return odd
            until = FAR if ends is None else ends + leeway
            if now >= until:
                return expired
            if (begins is not None and now < begins - leeway) or (made is not None and now < made - leeway):
                return early
            if longest is not None and (ends is None or made is None or ends - made > longest):
                return odd
            if issuer and claims.get("iss") != issuer:
                return wrong_issuer
            if audience and audience.isdisjoint(texts(claims.get("aud"))):
                return wrong_audience
            subject = dig(claims, who)
            if not isinstance(subject, str) or not subject:
                return odd
            granted = self.identity(subject, claims, consumers, until)
            if granted is None:
                return unknown
            if wanted:
                held = wanted.intersection(granted.principal.scopes)
                if not held or (every and len(held) < len(wanted)):
                    return narrow
            return granted

        return judge

    def identity(
        self, subject: str, claims: Mapping[str, Any], consumers: Consumers, until: float
    ) -> Granted | None:
        """Who is calling; None: nobody whom we take."""
        known = consumers.with_subject(subject)
        # An issuer may call its users as it likes: none of them becomes a consumer who is not theirs.
        if known is None and (self.only_consumers or consumers.get(subject) is not None):
            return None
        held = next((claims[name] for name in self.scopes_claim if name in claims), ())
        groups = texts(dig(claims, self.groups_claim.split("."))) if self.groups_claim else ()
        principal = Principal(
            known.name if known is not None else subject,
            self.name,
            (*known.groups, *groups) if known is not None else groups,
            tuple(held.split()) if isinstance(held, str) else texts(held),
            claims,
        )
        fields = []
        for name, claim in self.claim_headers:
            found = dig(claims, claim.split("."))
            if found is not None:
                fields.append((name.encode(), shown(found)))
        if self.consumer_header:
            fields.append((self.consumer_header.encode(), value(principal.consumer)))
        return Granted(principal, fields, until)


class Remembered(Generic[T]):
    """What is known about tokens, by their digest; the oldest goes when there are too many."""

    __slots__ = ("_known", "_most", "get")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[bytes, T] = {}
        self.get = self._known.get

    def add(self, digest: bytes, what: T) -> None:
        if not self._most:
            return
        self._known.pop(digest, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[digest] = what

    def clear(self) -> None:
        self._known.clear()


def is_time(claim: object) -> bool:
    """Whether this is a number of seconds as RFC 7519 means it; no switch, nothing beyond all times."""
    return isinstance(claim, int | float) and not isinstance(claim, bool) and -FAR < claim < FAR


def texts(claim: object) -> tuple[str, ...]:
    """The texts in a claim that is one, or a list of them."""
    if isinstance(claim, str):
        return (claim,)
    return tuple(each for each in claim if isinstance(each, str)) if isinstance(claim, list) else ()


def shown(claim: object) -> bytes:
    """A claim as the value of a field: a text as it is, texts with commas between, anything else as JSON."""
    if isinstance(claim, list) and all(isinstance(each, str) for each in claim):
        claim = ",".join(claim)
    return value(claim if isinstance(claim, str) else json.dumps(claim, separators=(",", ":")))
