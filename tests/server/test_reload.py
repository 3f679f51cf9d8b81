"""A changed file in a running gateway: by signal, and by watching."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.processes import gateway

from .conftest import get

Document = dict[str, Any]


@pytest.fixture
def changed(document: Document) -> Document:
    """All requests go to the other app."""
    return {**document, "routes": [{"name": "all", "path": "/*", "upstream": "other"}]}


async def test_sighup_reads_the_file_again(tmp_path: Path, document: Document, changed: Document) -> None:
    async with gateway(tmp_path, document) as one:
        assert (await get(one.url + "/a")).text == "/a "
        one.write(changed)
        one.signal(signal.SIGHUP)
        await one.says("the configuration was read again: 1 route, 2 upstreams")
        assert (await get(one.url + "/a")).text == "other"


async def test_sighup_with_a_bad_file_changes_nothing_and_says_why(
    tmp_path: Path, document: Document
) -> None:
    async with gateway(tmp_path, document) as one:
        one.write({**document, "upstream": {}})
        one.signal(signal.SIGHUP)
        await one.says("the new configuration is refused, the old one goes on")
        await one.says(r"gateway.yaml:1: upstream: .*did you mean")
        assert (await get(one.url + "/a")).text == "/a "


async def test_a_change_of_the_server_section_is_used_after_a_restart(
    tmp_path: Path, document: Document
) -> None:
    async with gateway(tmp_path, document) as one:
        one.write(
            {**document, "server": {"listen": "127.0.0.1:0", "drain": "0s", "workers": 3, "grace": "1s"}}
        )
        one.signal(signal.SIGHUP)
        await one.says("used after a restart only: server.workers, server.grace")
        assert (await get(one.url + "/a")).text == "/a "


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
async def test_a_watched_file_that_is_edited_is_live(
    tmp_path: Path, document: Document, changed: Document, options: tuple[str, ...]
) -> None:
    async with gateway(tmp_path, document, "--reload", *options) as one:
        one.write(changed)
        await one.says("read again: 1 route" + (".*; 2 workers serve it" if options else ""))
        assert (await get(one.url + "/a")).text == "other"


async def test_a_watched_file_that_is_replaced_is_live(
    tmp_path: Path, document: Document, changed: Document
) -> None:
    async with gateway(tmp_path, document, "--reload") as one:
        (tmp_path / "new").write_text(json.dumps(changed))
        assert one.file is not None
        (tmp_path / "new").rename(one.file)
        await one.says("read again: 1 route")
        assert (await get(one.url + "/a")).text == "other"


async def test_a_watched_link_that_leads_elsewhere_is_live(
    tmp_path: Path, document: Document, changed: Document
) -> None:
    for name, content in (("one", document), ("two", changed)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(json.dumps(content))
    served = tmp_path / "served"
    served.mkdir()
    (served / "data").symlink_to(tmp_path / "one")
    async with gateway(served, document, "--reload") as one:
        assert one.file is not None
        one.file.unlink()
        one.file.symlink_to(Path("data") / "gateway.yaml")
        (served / "next").symlink_to(tmp_path / "two")
        os.replace(served / "next", served / "data")
        await one.says("read again: 1 route")
        # From now on the folder that the link leads to counts.
        (tmp_path / "two" / "gateway.yaml").write_text(json.dumps(document))
        await one.says("read again: 2 routes")


async def test_a_watched_file_that_vanishes_changes_nothing_and_is_said_once(
    tmp_path: Path, document: Document, changed: Document
) -> None:
    async with gateway(tmp_path, document, "--reload") as one:
        assert one.file is not None
        one.file.unlink()
        await one.says("is gone; the configuration stays as it is")
        (tmp_path / "unrelated").write_text("a")
        assert (await get(one.url + "/a")).text == "/a "
        one.write(changed)
        await one.says("read again: 1 route")
        assert sum("is gone" in line for line in one.err) == 1


async def test_a_watched_file_that_is_half_written_changes_nothing(
    tmp_path: Path, document: Document, changed: Document
) -> None:
    async with gateway(tmp_path, document, "--reload") as one:
        one.write(json.dumps(changed)[:50])
        await one.says("the new configuration is refused")
        assert (await get(one.url + "/a")).text == "/a "
        one.write(changed)
        await one.says("read again: 1 route")
        assert (await get(one.url + "/a")).text == "other"
