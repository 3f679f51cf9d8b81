"""What a start does not do: held by what is imported and read, because seconds depend on the machine."""

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel

from asgi_gateway.declaration import Declaration, descriptions

HELP = "from asgi_gateway.cli import main; main(['--help'], standalone_mode=False)"
LOAD = """
from asgi_gateway.gateway import Gateway
Gateway.parse({
    "upstreams": {"origin": {"targets": ["http://127.0.0.1:9"]}},
    "components": ["request_id", "access_log"],
    "routes": [{"name": "all", "path": "/*", "upstream": "origin"}],
})
"""
TELL = """
import json, linecache, sys
kinds = []
if model := sys.modules.get("asgi_gateway.component"):
    kinds = [(kind.__name__, kind.__pydantic_complete__) for kind in model.Component.__subclasses__()]
print(json.dumps({"modules": sorted(sys.modules), "sources": sorted(linecache.cache), "components": kinds}))
"""


def after(code: str) -> dict[str, Any]:
    """What a new interpreter has imported and read, and which components it has looked into."""
    command = [sys.executable, "-c", code + "\n" + TELL]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_package_by_itself_imports_nothing() -> None:
    modules = after("import asgi_gateway")["modules"]
    assert [name for name in modules if name.startswith("asgi_gateway")] == ["asgi_gateway"]
    assert not {"asyncio", "click", "pydantic", "uvicorn"} & set(modules)


def test_help_imports_the_command_line_and_nothing_behind_it() -> None:
    modules = after(HELP)["modules"]
    ours = [name for name in modules if name.startswith("asgi_gateway")]
    assert ours == ["asgi_gateway", "asgi_gateway.cli", "asgi_gateway.errors"]
    assert not {"asyncio", "httptools", "pydantic", "ssl", "uvicorn", "yaml"} & set(modules)


def test_a_plain_file_imports_no_library_that_only_some_components_need() -> None:
    modules = set(after(LOAD)["modules"])
    needless = {"aiobreaker", "brotli", "cryptography", "h2", "httpx", "joserfc", "jsonschema_rs", "redis"}
    assert not (needless | {"http_message_signatures", "opentelemetry", "uvicorn"}) & modules


def test_what_a_file_does_not_name_is_not_looked_into() -> None:
    told = after(LOAD)
    components = dict(told["components"])
    assert len(components) > 30
    assert {name for name, built in components.items() if built} == {"RequestId", "AccessLog"}
    assert [name for name in told["sources"] if "asgi_gateway" in name] == []


class Options(Declaration):
    """For the tests."""

    limit: int = 1
    """How many.

    In all.
    """
    bare: int = 1
    other: str = ""
    """Something else."""


class More(Options):
    """Says one thing anew, and one no more."""

    limit: int = 2
    """How many more."""
    other: str = "x"


def test_fields_are_described_by_the_strings_under_them() -> None:
    assert descriptions(Options) == {"limit": "How many.\n\nIn all.", "other": "Something else."}
    assert descriptions(More) == {"limit": "How many more."}


def test_the_json_schema_of_a_declaration_has_the_descriptions() -> None:
    properties = More.model_json_schema()["properties"]
    assert properties["limit"]["description"] == "How many more."
    assert "description" not in properties["bare"]


@pytest.mark.parametrize("base", [BaseModel, Declaration])
def test_a_class_that_a_program_made_has_no_descriptions(base: type[BaseModel]) -> None:
    assert descriptions(type("Made", (base,), {"__annotations__": {"field": int}})) == {}


def test_a_class_in_a_function_is_described_whatever_its_strings_look_like() -> None:
    class Inside(Declaration):
        """In a function."""

        field: str = """
at the left margin
"""
        """What it is."""

    assert descriptions(Inside) == {"field": "What it is."}
