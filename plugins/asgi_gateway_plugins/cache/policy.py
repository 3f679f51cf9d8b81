"""What a shared cache may keep, for how long, and what it may answer with it (RFC 9111, RFC 5861). Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from asgi_gateway.asgi import Header, Headers, header

from .directives import NONE, Directives, date, directives, names, names_tag, seconds

HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Answers that may be kept where nobody says for how long (RFC 9110 15.1), but parts of one."""
UNDERSTOOD = HEURISTIC | {302, 303, 307, 400, 401, 403, 406, 409, 411, 412, 413, 415, 417, 421, 422, 426, 451}
"""Status codes whose meaning for caches is known, for `must-understand` (RFC 9111 5.2.2.3)."""
NEVER = frozenset({206, 304})
FAILURES = frozenset({500, 502, 503, 504})
"""What stale-if-error takes for an error (RFC 5861 4)."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
"""Methods that change nothing (the registry of RFC 9110 16.1.1)."""
FOREVER = 2.0**31

ASKING = frozenset(
    {
        b"cache-control",
        b"pragma",
        b"range",
        b"if-none-match",
        b"if-modified-since",
        b"if-match",
        b"if-unmodified-since",
        b"if-range",
        b"authorization",
        b"cookie",
    }
)
"""Fields of a request that a cache looks at."""
CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
"""Conditions that are answered from what is kept."""
PASSED = frozenset({b"range", b"if-range", b"if-match", b"if-unmodified-since"})
"""What only the origin can answer."""
NOT_KEPT = frozenset({b"age", b"set-cookie", b"proxy-authentication-info"})
"""Fields that are not kept with an answer."""
NOT_UPDATED = frozenset(
    {b"content-encoding", b"content-length", b"content-md5", b"content-range", b"etag", *NOT_KEPT}
)
"""Fields that belong to the body, and that a 304 does not change (RFC 9111 3.2)."""
WITH_304 = frozenset(
    {b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"last-modified"}
)
"""Fields of a 304 (RFC 9110 15.4.5)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decides."""

    ttl: float = 0.0
    heuristic: float = 0.0
    while_revalidate: float = 0.0
    if_error: float = 0.0
    errors: bool = False
    shared: bool = False
    obey_callers: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says to a cache."""

    directives: Directives = field(default_factory=dict)
    authorization: bool = False
    cookie: bool = False
    passes: bool = False
    """Whether it is for the origin alone."""
    if_none_match: bytes = b""
    if_modified_since: bytes = b""

    @classmethod
    def of(cls, headers: Iterable[Header], *, obeyed: bool = True) -> "Asked":
        told: list[Header] = [pair for pair in headers if pair[0] in ASKING]
        present = {name for name, _ in told}
        said = directives(told) if obeyed else NONE
        if obeyed and not said and b"cache-control" not in present and b"pragma" in present:
            # HTTP/1.0 had no other word for it (RFC 9111 5.4).
            said = {b"no-cache": None} if b"no-cache" in directives(told, b"pragma") else NONE
        return cls(
            directives=said,
            authorization=b"authorization" in present,
            cookie=b"cookie" in present,
            passes=not PASSED.isdisjoint(present) or b"no-store" in said,
            if_none_match=b", ".join([value for name, value in told if name == b"if-none-match"]),
            if_modified_since=header(told, b"if-modified-since") or b"",
        )

    @property
    def validates(self) -> bool:
        """Whether it wants nothing that the origin was not asked about."""
        return b"no-cache" in self.directives

    def takes(self, age: float, left: float, term: "Term") -> bool:
        """Whether an answer of this age, fresh for so long, or stale if negative, is good enough."""
        said = self.directives
        if b"no-cache" in said:
            return False
        oldest = seconds(said.get(b"max-age"))
        if b"max-age" in said and (oldest is None or age > oldest or not oldest):
            return False
        if b"min-fresh" in said and left < (seconds(said[b"min-fresh"]) or 0):
            return False
        if left > 0:
            return True
        if b"max-stale" not in said or term.strict:
            return False
        most = said[b"max-stale"]
        return most is None or -left <= (seconds(most) or 0)


NOTHING = Asked()


@dataclass(frozen=True, slots=True)
class Term:
    """How long an answer may be used."""

    lifetime: float
    """Seconds from its making for which it is fresh."""
    age: float
    """Seconds since it was made, when it came."""
    strict: bool = False
    """Whether it is never used stale: must-revalidate, proxy-revalidate, no-cache, s-maxage."""
    while_revalidate: float = 0.0
    if_error: float = 0.0
    open_to_all: bool = False
    """Whether callers with Authorization may share it (RFC 9111 3.5)."""
    guessed: bool = False
    """Whether the origin says nothing about it: what may differ for those who send cookies."""

    @property
    def left(self) -> float:
        """Seconds for which it is fresh when it came."""
        return self.lifetime - self.age


def is_understood(status: int) -> bool:
    return status in UNDERSTOOD


def term(
    status: int, headers: Headers, asked: Asked, rules: Rules, *, now: float, delay: float = 0.0
) -> Term | None:
    """How long an answer may be used that just came; None: it is not kept (RFC 9111 3).

    `now`: wall clock seconds; `delay`: how long the answer took.
    """
    if status in NEVER or status < 200 or (status >= 500 and not rules.errors):
        return None
    said = directives(headers)
    if b"no-store" in said and not (b"must-understand" in said and is_understood(status)):
        return None
    if b"must-understand" in said and not is_understood(status):
        return None
    if b"private" in said or b"no-store" in asked.directives:
        return None
    open_to_all = not {b"public", b"s-maxage", b"must-revalidate"}.isdisjoint(said)
    if asked.authorization and not open_to_all:
        return None
    if any(name == b"set-cookie" for name, _ in headers):
        return None
    if b"*" in names(headers, b"vary"):
        return None
    made = date(header(headers, b"date") or b"")
    lifetime = explicit(said, headers, made if made is not None else now)
    silent = lifetime is None and b"public" not in said
    if lifetime is None:
        if status not in HEURISTIC and b"public" not in said:
            return None
        lifetime = guessed(status, headers, said, asked, rules, made if made is not None else now)
    if b"no-cache" in said:
        lifetime = 0.0
    age = initial_age(headers, made, now, delay)
    strict = not {b"must-revalidate", b"proxy-revalidate", b"no-cache"}.isdisjoint(said)
    while_revalidate, if_error = (0.0, 0.0) if strict else windows(said, rules)
    if lifetime <= age and not has_validator(headers) and lifetime + max(while_revalidate, if_error) <= age:
        return None  # it could never be used
    # s-maxage alone means the same as proxy-revalidate (RFC 9111 5.2.2.10); beside it an origin may say more.
    strict = strict or b"s-maxage" in said
    return Term(lifetime, age, strict, while_revalidate, if_error, open_to_all, silent)


def explicit(said: Directives, headers: Headers, made: float) -> float | None:
    """The lifetime that an origin states (RFC 9111 4.2.1); what cannot be read is none at all."""
    for name in (b"s-maxage", b"max-age"):
        if name in said:
            return float(seconds(said[name]) or 0)
    expires = header(headers, b"expires")
    if expires is None:
        return None
    until = date(expires)
    return until - made if until is not None else 0.0


def guessed(
    status: int, headers: Headers, said: Directives, asked: Asked, rules: Rules, made: float
) -> float:
    """The lifetime of an answer whose origin says nothing about it (RFC 9111 4.2.2)."""
    # Nobody said that such an answer is the same for all.
    if (asked.authorization or asked.cookie) and not rules.shared and b"public" not in said:
        return 0.0
    if rules.ttl:
        return rules.ttl
    changed = date(header(headers, b"last-modified") or b"")
    if changed is None or not rules.heuristic:
        return 0.0
    return max(0.0, (made - changed) * rules.heuristic)


def windows(said: Directives, rules: Rules) -> tuple[float, float]:
    """For how long an answer may be used stale: while it is fetched anew, and when that fails (RFC 5861)."""
    default = b"s-maxage" not in said
    found = []
    for name, own in (
        (b"stale-while-revalidate", rules.while_revalidate),
        (b"stale-if-error", rules.if_error),
    ):
        if name in said:
            found.append(float(seconds(said[name]) or 0))
        else:
            found.append(own if default else 0.0)
    return found[0], found[1]


def initial_age(headers: Headers, made: float | None, now: float, delay: float) -> float:
    """How old an answer is when it comes (RFC 9111 4.2.3)."""
    told = [value.strip() for name, value in headers if name == b"age"]
    apparent = max(0.0, now - made) if made is not None else 0.0
    if not told:
        return max(apparent, delay)
    # Of a list the first member counts (RFC 9111 5.1).
    said = seconds(told[0].partition(b",")[0].strip()) if len(told) == 1 else None
    if said is None:
        # Any age may be meant: it counts as too old, which costs no more than a validation.
        return FOREVER
    return max(apparent, said + delay)


def has_validator(headers: Headers) -> bool:
    return any(name in (b"etag", b"last-modified") for name, _ in headers)


def conditional(headers: Headers, kept: Headers) -> list[Header]:
    """The fields of a request that asks whether what is kept is still good (RFC 9111 4.3.1)."""
    asking = [pair for pair in headers if pair[0] not in CONDITIONS]
    if (tag := header(kept, b"etag")) is not None:
        asking.append((b"if-none-match", tag))
    if (changed := header(kept, b"last-modified")) is not None:
        asking.append((b"if-modified-since", changed))
    return asking


def unconditional(headers: Headers) -> list[Header]:
    """The fields of a request without the caller's own conditions, which are answered here."""
    return [pair for pair in headers if pair[0] not in CONDITIONS]


def has_not_changed(status: int, kept: Headers, asked: Asked) -> bool:
    """Whether the caller has it already: 304 (RFC 9110 13.2.2)."""
    if status != 200:
        return False
    if asked.if_none_match:
        return names_tag(asked.if_none_match, header(kept, b"etag") or b"")
    if asked.if_modified_since:
        since = date(asked.if_modified_since)
        changed = header(kept, b"last-modified") or header(kept, b"date")
        when = date(changed) if changed is not None else None
        return since is not None and when is not None and when <= since
    return False


def updated(kept: Headers, fresh: Headers) -> list[Header]:
    """The fields of what is kept, with those of a 304 (RFC 9111 3.2)."""
    new = [pair for pair in fresh if pair[0] not in NOT_UPDATED]
    replaced = {name for name, _ in new}
    return [pair for pair in kept if pair[0] not in replaced] + new


def varying(headers: Headers) -> tuple[bytes, ...]:
    """The fields of a request that chose this answer. What is encoded was chosen, even if nobody says so."""
    fields = set(names(headers, b"vary"))
    if header(headers, b"content-encoding") is not None:
        fields.add(b"accept-encoding")
    return tuple(sorted(fields))


def chosen(fields: Sequence[bytes], headers: Iterable[Header]) -> tuple[bytes, ...]:
    """What a request says in these fields, spelt alike where it means the same (RFC 9111 4.1)."""
    said: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in fields:
            said.setdefault(name, []).append(value)
    return tuple([normal(name, said[name]) if name in said else b"\0" for name in fields])


def normal(name: bytes, lines: list[bytes]) -> bytes:
    members = [member.strip() for member in b",".join(lines).split(b",")]
    if name == b"accept-encoding":
        # The order of codings means nothing, and browsers differ in it.
        return b",".join(sorted(member.replace(b" ", b"").lower() for member in members if member))
    if name == b"accept-language":
        return b",".join(member.replace(b" ", b"").lower() for member in members if member)
    return b",".join(members)
