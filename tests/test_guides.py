import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asgi_gateway.gateway import Gateway

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDES = (
    ROOT / "README.md",
    DOCS / "README.md",
    DOCS / "balancing.md",
    DOCS / "concepts.md",
    DOCS / "getting-started.md",
    DOCS / "mounting.md",
    DOCS / "websocket.md",
    DOCS / "store.md",
    DOCS / "writing-a-plugin.md",
)


def blocks(guide: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)


def files() -> list[str]:
    return [text for guide in GUIDES for text in blocks(guide, "yaml")]


@pytest.mark.parametrize("text", files())
def test_every_file_of_the_guides_makes_a_gateway(text: str) -> None:
    assert Gateway.parse(yaml.safe_load(text)).plan


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.relative_to(ROOT)))
def test_the_python_of_a_guide_runs(guide: Path, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(files()[0])
    for number, text in enumerate(blocks(guide, "python")):
        plugin = re.search(r"name=\"(\w+)\", stage=", text)
        script = tmp_path / f"{plugin[1] if plugin else f'block_{number}'}.py"
        script.write_text(text)
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.relative_to(ROOT)))
def test_every_link_of_a_guide_leads_to_a_file(guide: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", guide.read_text()) if "://" not in link]
    assert [link for link in links if not (guide.parent / link).exists()] == []


def test_the_plugin_example_runs() -> None:
    script = ROOT / "examples" / "hello_plugin.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200 hi from the service\n", "")


def test_the_minimal_example_makes_a_gateway() -> None:
    assert [plan.name for plan in Gateway.load(ROOT / "examples" / "minimal.yaml").plan] == ["files"]


async def test_the_mounted_example_answers_through_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import mount_fastapi

    transport = httpx.ASGITransport(mount_fastapi.app)
    async with (
        mount_fastapi.gateway.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        answers = [await client.get("/api/hi") for _ in range(6)]
        own = await client.get("/own")
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].json() == {"said": "hi"}
    assert "x-request-id" in answers[0].headers
    assert "x-request-id" not in own.headers
