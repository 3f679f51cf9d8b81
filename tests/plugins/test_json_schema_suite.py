"""The public test-suite for JSON Schema, draft 2020-12, against the schemas of `validate`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway_contrib.validate.schemas import Checker
from tests.processes import ROOT

SUITE = ROOT / ".venv" / "json-schema-tests" / "draft2020-12"
REQUIRED = 1257
"""Tests that an implementation has to pass."""
OPTIONAL = 649
"""Those that it may pass: formats, regular expressions as in ECMAScript, and more. All that start do."""
FETCHES = 44
"""Tests of schemas that refer to other documents: nothing is fetched, and these are refused at start."""
VOCABULARIES = 5
"""Tests of schemas with meta-schemas of their own, which would have to be fetched, too."""
FORMATS = 19
"""Tests that want formats to be remarks; `validate` checks them."""


@pytest.fixture(scope="module")
def suite() -> Path:
    if not SUITE.is_dir():
        pytest.skip("the JSON Schema test-suite is not here: scripts/setup gets it where it can")
    return SUITE


def groups(folder: Path, pattern: str) -> Iterator[tuple[str, Any]]:
    """Schemas with their tests, and where they stand."""
    for file in sorted(folder.glob(pattern)):
        for group in json.loads(file.read_text(encoding="utf-8")):
            yield f"{file.relative_to(folder)}: {group['description']}", group


def judge(folder: Path, pattern: str) -> tuple[int, dict[str, str], list[str]]:
    """How many tests there are, which were refused at start and why, and which came out otherwise."""
    count, refused, wrong = 0, dict[str, str](), list[str]()
    for where, group in groups(folder, pattern):
        count += len(group["tests"])
        try:
            checker = Checker.of(group["schema"], "schema")
        except ConfigError as error:
            refused |= {f"{where}: {test['description']}": str(error) for test in group["tests"]}
            continue
        for test in group["tests"]:
            # What does not fit is told: the mistakes are looked for with another schema.
            fits = checker.accepts(test["data"])
            if fits is not test["valid"] or (not fits and not list(checker.faults(test["data"], 10))):
                wrong.append(f"{where}: {test['description']}")
    return count, refused, wrong


def test_all_required_tests_pass_but_those_that_want_what_we_do_not_do(suite: Path) -> None:
    count, refused, wrong = judge(suite, "*.json")
    assert count == REQUIRED
    assert [where for where in wrong if not where.endswith("string is only an annotation by default")] == []
    assert len(wrong) == FORMATS
    assert sum("nothing is fetched" in why for why in refused.values()) == FETCHES
    assert sum("Unknown meta-schema" in why for why in refused.values()) == VOCABULARIES
    assert len(refused) == FETCHES + VOCABULARIES


def test_all_optional_tests_pass_that_fetch_nothing(suite: Path) -> None:
    count, refused, wrong = judge(suite, "optional/**/*.json")
    assert (count, len(refused), wrong) == (OPTIONAL, 5, [])
    assert all("nothing is fetched" in why or "Unknown meta-schema" in why for why in refused.values())
