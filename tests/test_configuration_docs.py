import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import asgi_gateway_plugins
from asgi_gateway.config import GatewayConfig
from asgi_gateway.loading import parse
from asgi_gateway.loading.yaml12 import read_yaml
from asgi_gateway.plugins import Plugins

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def extra() -> list[ModuleType]:
    """The standard plugin, where it is not installed."""
    return [] if "rate_limit" in Plugins.installed().components else [asgi_gateway_plugins]


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "docs", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_example_is_read(text: str) -> None:
    parse(read_yaml(text).data, extra(), environ={})


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_toml_example_is_read(text: str) -> None:
    parse(tomllib.loads(text), extra(), environ={})


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_example_runs(text: str) -> None:
    names: dict[str, Any] = {}
    exec(text, names)
    assert isinstance(names["config"], GatewayConfig)


def test_every_link_of_the_reference_leads_to_a_section() -> None:
    headings = re.findall(r"^###? (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= anchors
