import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import asgi_gateway_contrib
import asgi_gateway_plugins
from asgi_gateway.component import Component
from asgi_gateway.declaration import descriptions
from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Upstreams, client

PAGES = Path(__file__).parents[2] / "docs" / "components"
OFFERED = (*asgi_gateway_plugins.gateway_components(), *asgi_gateway_contrib.gateway_components())
KINDS = {kind.name: kind for kind in OFFERED}

ANSWERS = {"redirect": 308, "respond": 200}
"""Components that answer themselves, with the status that their pages show."""


def one_line(text: str) -> str:
    return " ".join(text.split())


def summary(kind: type[Component]) -> str:
    return one_line(str(kind.__doc__))


def facts(kind: type[Component]) -> str:
    """The line below the title of a page."""
    refuses = "may refuse" if kind.refuses else "never refuses"
    return f"Stage {kind.stage.name} · serves {', '.join(sorted(kind.serves))} · {refuses}"


def options_table(kind: type[BaseModel]) -> str:
    """The options of a component as a page shows them."""
    rows = "\n".join(f"| `{name}` | {default} | {what} |" for name, default, what in options(kind))
    return f"| option | default | what |\n|---|---|---|\n{rows}"


def options(kind: type[BaseModel]) -> list[tuple[str, str, str]]:
    defaults = kind.model_construct().model_dump(mode="json", by_alias=True)
    described = descriptions(kind)
    rows = []
    for field, info in kind.model_fields.items():
        name = info.alias or field
        if isinstance(info.default, BaseModel):
            inner = options(type(info.default))
            rows += [
                (f"{name}.{option}", default, f"{described[field]} {what}") for option, default, what in inner
            ]
        else:
            what = one_line(described.get(field, "")).replace("|", "\\|")
            rows.append((name, shown(info, defaults.get(name)), what))
    return rows


def shown(info: FieldInfo, default: Any) -> str:
    if info.is_required():
        return "required"
    return f"`{yaml.safe_dump([default], default_flow_style=True, width=1000).strip()[1:-1]}`"


def index(kinds: dict[str, type[Component]]) -> str:
    """The table of all components."""
    rows = []
    for name, kind in sorted(kinds.items(), key=lambda pair: (pair[1].stage, pair[0])):
        refuses = "yes" if kind.refuses else "no"
        serves = ", ".join(sorted(kind.serves))
        first = summary(kind).split(". ")[0].rstrip(".") + "."
        rows.append(f"| [`{name}`]({name}.md) | {kind.stage.name} | {serves} | {refuses} | {first} |")
    return "\n".join(["| name | stage | serves | refuses | what |", "|---|---|---|---|---|", *rows])


def example(name: str) -> tuple[dict[str, Any], list[str]]:
    """The file on a page, and the words of the curl line that follows it."""
    found = re.search(r"```yaml\n(.*?)```.*?\n(curl .*?)\n```", (PAGES / f"{name}.md").read_text(), re.DOTALL)
    assert found, f"the page of {name} has no file in a yaml block and no curl line after it"
    return yaml.safe_load(found[1]), shlex.split(found[2])


@pytest.mark.parametrize("name", KINDS)
def test_every_option_is_described(name: str) -> None:
    for option, _, what in options(KINDS[name]):
        assert what, f"{name}.{option} has no docstring"


@pytest.mark.parametrize("name", KINDS)
def test_a_page_says_what_the_component_says(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    for part in (f"# {name}\n", summary(KINDS[name]), facts(KINDS[name]), options_table(KINDS[name])):
        assert part in page


def test_the_index_names_all_components() -> None:
    assert index(KINDS) in (PAGES / "README.md").read_text()
    assert {page.stem for page in PAGES.glob("*.md")} == {*KINDS, "README"}


@pytest.mark.parametrize("name", KINDS)
async def test_the_example_of_a_page_works(
    name: str, upstreams: Upstreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    declared, words = example(name)
    Gateway.parse(declared)
    for upstream in declared["upstreams"]:
        declared["upstreams"][upstream]["endpoint"] = {"recording": {"label": upstream}}
        del declared["upstreams"][upstream]["targets"]
    gateway = Gateway.parse(declared, plugins=[upstreams])
    async with gateway.lifespan(), client(gateway) as http:
        answer = await curl(http, words)
    assert answer.status_code == ANSWERS.get(name, 200)
    assert bool(upstreams.seen) == (name not in ANSWERS)


async def curl(http: httpx.AsyncClient, words: list[str]) -> httpx.Response:
    headers = [tuple(value.split(": ", 1)) for flag, value in pairwise(words) if flag == "-H"]
    url = httpx.URL(words[-1])
    return await http.get(url.raw_path.decode(), headers=headers)
