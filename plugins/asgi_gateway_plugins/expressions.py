"""Regular expressions of users: whatever they say, and whatever a caller sends, a match takes linear time.

Python's `re` backtracks: `(a+)+$` takes hours on forty characters. The engine here is that of Rust, which
comes with pydantic and never backtracks; so it knows no look-around and no back references.
"""

import re
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from asgi_gateway.mistake import mistake

LONGEST = 500
"""Characters in one expression."""
REPEATED = 500
"""The product of all counts in one, as in `{1,20}`: they are copies of what is repeated, and multiply."""
COUNT = re.compile(r"\\[xuU]\{|\\.|\{([^}]*)\}", re.DOTALL)

Match = Callable[[str], bool]


def read_expression(text: str) -> str:
    if len(text) > LONGEST:
        raise mistake(f"has {len(text)} characters", f"an expression has at most {LONGEST}")
    product = 1
    for inside in COUNT.findall(text):
        product *= max([1, *map(int, re.findall("[0-9]{1,9}", inside))])
    if product > REPEATED:
        raise mistake(
            f"{text!r} repeats something {product} times",
            f"all counts multiplied are at most {REPEATED}; + and * count nothing",
            text,
        )
    try:
        compile_expression(text, whole=False)
        compile_expression(text, whole=True)
    except SchemaError as error:
        why = str(error).splitlines()[-1].strip().removeprefix("error: ").removeprefix("SchemaError: ")
        raise mistake(f"{text!r} is not a regular expression", why, text) from None
    return text


Expression = Annotated[str, AfterValidator(read_expression)]
"""A regular expression in the syntax of Rust, which is Python's without look-around and back references."""


def compile_expression(text: str, *, whole: bool) -> Match:
    """Whether a text holds it, or is it as a `whole`; SchemaError if it is none."""
    pattern = f"^(?:{text})$" if whole else text
    schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
    return SchemaValidator(schema).isinstance_python


def any_of(expressions: Iterable[str], *, whole: bool) -> Match:
    """Whether one of them is found in a text, or is the `whole` of it."""
    matches = [compile_expression(text, whole=whole) for text in expressions]
    return lambda text: any(match(text) for match in matches)
