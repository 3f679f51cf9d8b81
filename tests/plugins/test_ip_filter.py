import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.config import Use
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_plugins.ip_filter import IpFilter
from tests.plugins.kit import Upstreams, client, document, handshake, serving

INSIDE, OUTSIDE = "10.1.2.3", "203.0.113.9"


async def statuses(component: IpFilter, *addresses: str, **around: Any) -> list[int]:
    async with gateway_around(component, **around) as caller:
        return [(await caller.get("/", client=(address, 1))).status for address in addresses]


async def status(gateway: Gateway) -> int:
    async with client(gateway) as http:
        return (await http.get("/")).status_code


async def test_what_is_denied_is_refused() -> None:
    component = IpFilter(deny=("203.0.113.0/24",))
    assert await statuses(component, OUTSIDE, INSIDE, "::ffff:203.0.113.1") == [403, 200, 403]


async def test_if_something_is_allowed_all_others_are_refused() -> None:
    component = IpFilter(allow=("10.0.0.0/8",))
    assert await statuses(component, INSIDE, "::ffff:10.0.0.1") == [200, 200]
    assert await statuses(component, OUTSIDE, "2001:db8::1") == [403, 403]


async def test_what_denies_wins() -> None:
    component = IpFilter(allow=("10.0.0.0/8",), deny=("10.1.0.0/16",))
    assert await statuses(component, INSIDE, "10.2.0.1") == [403, 200]
    component = IpFilter(allow_patterns=(r"10\..*",), deny=("10.1.0.0/16",))
    assert await statuses(component, INSIDE, "10.2.0.1") == [403, 200]


async def test_the_reason_says_which_list_it_was() -> None:
    async with gateway_around(IpFilter(allow=("10.0.0.0/8",), deny=("10.1.0.0/16",))) as caller:
        denied = await caller.get("/", client=(INSIDE, 1))
        other = await caller.get("/", client=(OUTSIDE, 1))
    assert (denied.json()["reason"], other.json()["reason"]) == ("address_denied", "address_not_allowed")
    assert denied.json()["component"] == "ip_filter"


async def test_patterns_are_for_the_whole_address_in_its_one_spelling() -> None:
    component = IpFilter(allow_patterns=(r"10\.1\.\d+\.[0-4]", "2001:db8:.*"))
    assert await statuses(component, "10.1.9.4", "::ffff:10.1.9.4", "2001:DB8:0:0::1") == [200] * 3
    assert await statuses(component, "110.1.9.4", "10.1.9.44", "2001:db9::1") == [403] * 3


async def test_a_peer_without_an_address_is_unix() -> None:
    assert await statuses(IpFilter(allow=("unix",)), "", INSIDE) == [200, 403]
    assert await statuses(IpFilter(allow=("10.0.0.0/8",)), "") == [403]
    assert await statuses(IpFilter(deny=("unix",)), "", INSIDE) == [403, 200]
    assert await statuses(IpFilter(deny=("10.0.0.0/8",)), "") == [200]


@pytest.mark.parametrize("address", ["testclient", "unix", "10.1.2.3, 10.1.2.4", "10.1.2.3:80"])
async def test_what_is_no_address_is_refused(address: str) -> None:
    assert await statuses(IpFilter(deny=("192.0.2.1",)), address) == [403]
    assert await statuses(IpFilter(allow_patterns=(".*",)), address) == [403]


@pytest.mark.parametrize(
    "name", ["x-forwarded-for", "x-real-ip", "forwarded", "x_forwarded_for", "client-ip"]
)
async def test_a_caller_cannot_say_another_address(name: str) -> None:
    async with gateway_around(IpFilter(allow=("10.0.0.0/8",))) as caller:
        for said in ("10.1.2.3", "for=10.1.2.3", "10.1.2.3, 203.0.113.9"):
            assert (await caller.get("/", headers={name: said}, client=(OUTSIDE, 1))).status == 403


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("10.1.2.3", 200),
        ("203.0.113.9", 403),
        ("10.1.2.3, 203.0.113.9", 403),
        ("203.0.113.9, 10.1.2.3", 200),
        ("10.1.2.3, 192.0.2.1", 200),
        ("10.1.2.3, what", 403),
        ("", 403),
    ],
)
async def test_behind_a_trusted_proxy_the_last_address_that_is_none_counts(said: str, expected: int) -> None:
    component, trusted = IpFilter(allow=("10.0.0.0/8",)), ("192.0.2.0/24",)
    async with gateway_around(component, trusted_proxies=trusted) as caller:
        answer = await caller.get("/", headers={"x-forwarded-for": said}, client=("192.0.2.7", 1))
    assert answer.status == expected


async def test_networks_are_read_from_files_at_each_reload(upstreams: Upstreams, tmp_path: Path) -> None:
    file = tmp_path / "denied"
    file.write_text("198.51.100.0/24 # a note\n")
    declared = document({"ip_filter": {"deny_files": [str(file)]}})
    gateway = Gateway.parse(declared, plugins=[upstreams])
    assert await status(gateway) == 200
    file.write_text("203.0.113.7\n")
    assert await status(gateway) == 200
    await gateway.reload(gateway.config)
    assert await status(gateway) == 403


async def test_an_empty_list_of_what_is_allowed_allows_nobody(tmp_path: Path) -> None:
    file = tmp_path / "none"
    file.write_text("# nobody\n")
    assert await statuses(IpFilter(allow_files=(str(file),)), INSIDE, OUTSIDE) == [403, 403]


def test_a_file_that_cannot_be_read_refuses_the_configuration(upstreams: Upstreams, tmp_path: Path) -> None:
    file = tmp_path / "networks"
    file.write_text("10.0.0.0/8\nhome\n")
    with pytest.raises(ConfigError, match=rf"{file}:2: .*'home' is not a network"):
        Gateway.parse(document({"ip_filter": {"allow_files": [str(file)]}}), plugins=[upstreams])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be read: it is a pipe or a device"):
        Gateway.parse(document({"ip_filter": {"deny_files": [str(tmp_path / "pipe")]}}), plugins=[upstreams])


async def test_a_hundred_thousand_networks_are_nothing_special() -> None:
    many = tuple(f"{a}.{b}.{c}.128/25" for a in range(20, 24) for b in range(100) for c in range(250))
    component = IpFilter.model_construct(deny=many)
    assert await statuses(component, "23.99.249.200", "23.99.249.100") == [403, 200]


async def test_routes_share_what_was_read(upstreams: Upstreams) -> None:
    declared = document(components=[{"ip_filter": {"deny": ["198.51.100.0/24"]}}])
    declared["routes"] += [{"name": f"r{n}", "path": f"/{n}", "upstream": "main"} for n in range(3)]
    few = len(Gateway.parse(document(), plugins=[upstreams])._kernel.resources)
    assert len(Gateway.parse(declared, plugins=[upstreams])._kernel.resources) == few + 1


async def test_a_handshake_is_refused_too(upstreams: Upstreams) -> None:
    declared = document({"ip_filter": {"allow": ["10.0.0.0/8"]}}, route={"websocket": True})
    refused = await handshake(Gateway.parse(declared, plugins=[upstreams]))
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 403)
    assert upstreams.seen == []


async def test_requests_without_a_route_are_refused_as_well(upstreams: Upstreams) -> None:
    declared = document(path="/here", components=[{"ip_filter": {"allow": ["10.0.0.0/8"]}}])
    async with serving(upstreams, declared) as http:
        assert (await http.get("/nowhere")).status_code == 403


async def test_reporting_records_and_lets_pass() -> None:
    upstream = Upstream()
    use = Use(component=IpFilter(allow=("10.0.0.0/8",)), mode="report")
    async with gateway_around(use, upstream=upstream) as caller:
        assert (await caller.get("/", client=(OUTSIDE, 1))).status == 200
    (reported,) = upstream.seen[0].scope["asgi_gateway.exchange"].reported
    assert (reported.reason, reported.component) == ("address_not_allowed", "ip_filter")


@pytest.mark.parametrize(
    "options",
    [{}, {"allow": ["10.0.0.0/33"]}, {"deny": ["home"]}, {"allow_patterns": ["(a"]}, {"allow": "10.0.0.1"}],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IpFilter.model_validate(options)
