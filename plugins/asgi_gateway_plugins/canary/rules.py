"""Rules that choose a variant before the percentage does."""

from collections.abc import Callable, Sequence

from pydantic import model_validator

from asgi_gateway.asgi import Scope, cookie, header
from asgi_gateway.config.model import Model, Name, Pairs
from asgi_gateway.exchange import Exchange
from asgi_gateway.mistake import mistake

Test = Callable[[Scope, Exchange], bool]
ANY = "*"


class Rule(Model):
    """Which requests get which variant. Everything that is given has to hold."""

    headers: Pairs = ()
    """These headers with these values; `*` for any value."""
    cookies: Pairs = ()
    """These cookies with these values; `*` for any value."""
    groups: tuple[Name, ...] = ()
    """The caller is in one of these groups."""
    consumers: tuple[Name, ...] = ()
    """The caller is one of these consumers."""
    variant: Name | None = None
    """What these requests get: a variant, or `stable`. Not given: the first variant."""

    @model_validator(mode="after")
    def says_something(self) -> "Rule":
        if not (self.headers or self.cookies or self.groups or self.consumers):
            raise mistake("a rule has a condition", "one of headers, cookies, groups, consumers")
        return self

    def test(self) -> Test:
        """The function that says whether it holds."""
        tests = [*(has_header(*pair) for pair in self.headers), *(has_cookie(*pair) for pair in self.cookies)]
        if self.groups:
            tests.append(in_groups(frozenset(self.groups)))
        if self.consumers:
            tests.append(is_consumer(frozenset(self.consumers)))
        return tests[0] if len(tests) == 1 else all_of(tests)


def all_of(tests: Sequence[Test]) -> Test:
    return lambda scope, exchange: all(test(scope, exchange) for test in tests)


def has_header(name: str, value: str) -> Test:
    key, wanted = name.lower().encode(), value.encode()
    if value == ANY:
        return lambda scope, exchange: header(scope["headers"], key) is not None
    pair = (key, wanted)
    return lambda scope, exchange: pair in scope["headers"]


def has_cookie(name: str, value: str) -> Test:
    key, wanted = name.encode(), value.encode()
    if value == ANY:
        return lambda scope, exchange: bool(cookie(scope["headers"], key))
    return lambda scope, exchange: cookie(scope["headers"], key) == wanted


def in_groups(groups: frozenset[str]) -> Test:
    def test(scope: Scope, exchange: Exchange) -> bool:
        principal = exchange.principal
        return principal is not None and not groups.isdisjoint(principal.groups)

    return test


def is_consumer(names: frozenset[str]) -> Test:
    def test(scope: Scope, exchange: Exchange) -> bool:
        principal = exchange.principal
        return principal is not None and principal.consumer in names

    return test
