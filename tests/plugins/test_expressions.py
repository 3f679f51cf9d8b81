import time

import pytest

from asgi_gateway_plugins.expressions import LONGEST, REPEATED, any_of, read_expression

EXPLODING = [
    "(a+)+$",
    "(a+)+b",
    "(a|a)*b",
    "(a|aa)+b",
    "(.*)*b",
    "(.*a){20}b",
    ".*" * 40 + "b",
    "(a?){250}a{2}b",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(\w{1,2}|.{1,2}){1,100}b",
    "(a|b)*a(a|b){480}b",
]


@pytest.mark.parametrize("expression", EXPLODING)
@pytest.mark.parametrize("whole", [True, False])
def test_what_explodes_elsewhere_takes_milliseconds(expression: str, whole: bool) -> None:
    match = any_of([read_expression(expression)], whole=whole)
    began = time.process_time()
    for text in ("a" * 45, "a" * 512 + "!", "é" * 512):
        match(text)
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("(a", "unclosed group"),
        ("a)(b", "unopened group"),
        ("*", "repetition operator missing expression"),
        ("(?=a)", "look-around"),
        (r"(a)\1", "backreferences"),
        ("(?x)a # b", "unclosed group"),
        ("[z-a]", "invalid character class range"),
        (r"(?:\pL{1,22}){1,22}", "size limit"),
        ("a" * (LONGEST + 1), f"at most {LONGEST}"),
        ("a{501}", f"at most {REPEATED}"),
        ("(a{1,23}){22}", "506 times"),
        ("(?x)a{ # no\n501}", "at most"),
    ],
)
def test_what_cannot_be_had_is_said(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_expression(expression)


def test_signs_that_only_look_like_counts_are_none() -> None:
    for expression in (r"\{900\}", r"\x{1F600}", r"[0-9a-f]{32}", r"\p{Greek}900", "a{3,}"):
        assert read_expression(expression) == expression


def test_whole_means_the_whole_text() -> None:
    match = any_of(["a|b", "c"], whole=True)
    assert [match(text) for text in ("a", "b", "c", "ab", "xa", "a\n", "\na", "")] == [True] * 3 + [False] * 5


def test_else_it_is_found_anywhere() -> None:
    match = any_of(["(?i)bot", "^x$"], whole=False)
    assert [match(text) for text in ("A BOT", "x", "xy", "")] == [True, True, False, False]
    assert not any_of([], whole=False)("anything")
