"""The only place that reads the path of a route."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from .config import Paths
from .paths import Ambiguous, canonical


class Pattern:
    """A route's path: `/orders` is exact, `{id}` in `/orders/{id}` is a variable, `/files/*` takes any rest.

    A variable takes one segment that is not empty. A last `/*` takes whatever follows, nothing included:
    `/files/*` serves `/files`, `/files/` and `/files/a/b`. Literals are spelt as `canonical` spells requests.
    """

    __slots__ = ("_positions", "path", "rest", "segments", "shape", "text", "variables")

    def __init__(self, text: str, policy: Paths | None = None) -> None:
        """`policy` is that of the requests. ValueError, with what to write instead, if it is none."""
        self.text = text
        trunk = text.removesuffix("/*")
        self.rest = trunk != text
        names = tuple(read_names(text, trunk.split("/")))
        # `x` holds the place of what is variable: it keeps the number of segments.
        plain = ["x" if name else part for part, name in zip(trunk.split("/"), names, strict=True)]
        spelt = respell(text, "/".join([*plain, "x"] if self.rest else plain), policy or Paths())
        parts = spelt.split("/")[1 : len(plain)]
        self.segments = tuple(None if name else part for part, name in zip(parts, names[1:], strict=True))
        """The literal segments; None where a variable stands."""
        self._positions = tuple((name, index) for index, name in enumerate(names) if name)
        found = tuple(name for name, _ in self._positions)
        self.variables = (*found, "*") if self.rest else found
        """The names of the variables; `*` is the rest that a wildcard takes."""
        self.shape = (self.segments, self.rest)
        """Two patterns of one shape match the same paths, whatever their variables are called."""
        self.path = "" if self.variables else spelt
        """The one canonical path that it matches; empty if there are many."""
        if len(set(found)) != len(found):
            raise ValueError(f"{text!r}: two variables have the same name")

    def params(self, segments: Sequence[str]) -> dict[str, str]:
        """The variables in a canonical path that matches, split at each slash; they are still encoded."""
        found = {name: segments[index] for name, index in self._positions} if self._positions else {}
        if self.rest:
            found["*"] = "/".join(segments[len(self.segments) + 1 :])
        return found

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def read_names(text: str, segments: Sequence[str]) -> Iterator[str]:
    """For each segment the name of its variable, or nothing for a literal."""
    for segment in segments:
        name = segment[1:-1] if segment[:1] + segment[-1:] == "{}" else ""
        if name.isidentifier():
            yield name
        elif "{" in segment or "}" in segment:
            raise ValueError(
                f"{text!r}: {segment!r} is not a variable: it is a name that stands for a whole segment,"
                " as in /orders/{id}; a brace itself is written %7B or %7D"
            )
        elif "*" in segment:
            raise ValueError(
                f"{text!r}: a * stands only at the end, after a slash; the sign itself is written %2A"
            )
        else:
            yield ""


@lru_cache(maxsize=64)  # as many as there are different policies: one in a gateway
def speller(policy: Paths) -> Callable[[bytes], str]:
    """The spelling of literals under a policy. To find it takes longer than all else that a pattern needs."""
    return canonical(
        Paths.model_validate({name: "keep" if value == "keep" else "reject" for name, value in policy})
    )


def respell(text: str, plain: str, policy: Paths) -> str:
    """The literal part in canonical spelling. What no request can hold after all policies is refused."""
    if "?" in plain:
        raise ValueError(f"{text!r}: a path has no query; say `query: {{name: value}}` on the route")
    try:
        return speller(policy)(plain.encode())
    except Ambiguous as error:
        raise ValueError(f"{text!r} matches no request: {error.detail}") from None
