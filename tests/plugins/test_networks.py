import ipaddress
import random
import time
from pathlib import Path

import pytest

from asgi_gateway.config.model import read_network
from asgi_gateway.errors import ConfigError
from asgi_gateway_plugins.networks import Networks, networks_in, pack, read_file, spelt


@pytest.mark.parametrize(
    ("address", "within"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("9.255.255.255", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("::ffff:10.1.2.3", True),
        ("::FFFF:0a01:0203", True),
        ("::ffff:198.51.100.9", True),
        ("2001:db8::1", True),
        ("2001:DB8:0:0::ffff", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", True),
        ("::1", False),
        ("::10.1.2.3", False),
        ("", False),
        ("10.1.2", False),
        ("010.1.2.3", False),
        ("167838211", False),
        ("10.1.2.3, 192.0.2.1", False),
        ("10.1.2.3\0", False),
        ("testclient", False),
    ],
)
def test_an_address_is_within_or_not(address: str, within: bool) -> None:
    networks = Networks(
        ["10.0.0.0/8", "10.2.0.0/16", "192.0.2.1", "2001:db8::/32", "fe80::/10", "::ffff:198.51.100.0/120"]
    )
    assert (address in networks) == within


def test_all_of_one_version_says_nothing_of_the_other() -> None:
    assert "2001:db8::1" not in Networks(["0.0.0.0/0"])
    assert "192.0.2.1" not in Networks(["::/0"])
    assert "::ffff:192.0.2.1" in Networks(["0.0.0.0/0"])


def test_a_peer_without_an_address_is_unix() -> None:
    assert "" in Networks(["unix"])
    assert "unix" not in Networks(["unix"])


@pytest.mark.parametrize("bits", [32, 128])
def test_it_agrees_with_the_standard_library(bits: int) -> None:
    dice = random.Random(7)
    kind = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
    texts = [f"{kind(dice.getrandbits(bits))}/{dice.randrange(4, bits + 1)}" for _ in range(60)]
    networks, known = Networks(texts), [ipaddress.ip_network(text, strict=False) for text in texts]
    edges = [
        int(edge) + step for network in known for edge in (network[0], network[-1]) for step in (-1, 0, 1)
    ]
    numbers = [number for number in edges if 0 <= number < 2**bits]
    for address in map(kind, [*numbers, *(dice.getrandbits(bits) for _ in range(500))]):
        assert (str(address) in networks) == any(address in network for network in known), address


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.0.0.0/255.0.0.0", "10.9.9.9"),
        ("10.0.0.0/0.255.255.255", "10.9.9.9"),
        ("10.9.9.9/8", "10.0.0.1"),
        ("0.0.0.0/0", "255.255.255.255"),
        ("::/0", "ffff::"),
        ("::ffff:0:0/96", "10.9.9.9"),
        ("fe80::%eth0/64", "fe80::1"),
    ],
)
def test_a_network_is_read_however_it_is_written(network: str, address: str) -> None:
    assert address in Networks([read_network(network)])


def test_five_thousand_networks_take_a_microsecond() -> None:
    networks = Networks(f"{a}.{b}.{c}.0/25" for a in (20, 21) for b in range(25) for c in range(100))
    assert "20.24.99.5" in networks
    assert "20.24.99.200" not in networks
    took = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            "20.12.50.7" in networks  # noqa: B015
        took.append((time.perf_counter() - began) / 200)
    assert min(took) < 2e-6


@pytest.mark.parametrize(
    ("address", "text"),
    [("::FFFF:192.0.2.1", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1"), ("192.0.2.1", "192.0.2.1")],
)
def test_an_address_has_one_spelling(address: str, text: str) -> None:
    assert spelt(pack(address)) == text


def test_a_file_has_a_network_in_a_line() -> None:
    content = b"# offices\n10.0.0.0/8\n\n  2001:db8::/32  # Berl\xefn\r\n192.0.2.1\n"
    assert networks_in("offices", content) == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]


def test_every_mistake_of_a_file_is_told_with_its_line() -> None:
    with pytest.raises(ConfigError) as raised:
        networks_in("offices", b"10.0.0.0/8\n10.0.0.0/33\nhome\n\xff\xfe\n")
    assert [(problem.file, problem.line) for problem in raised.value.problems] == [
        ("offices", 2),
        ("offices", 3),
        ("offices", 4),
    ]


def test_a_file_that_cannot_be_had_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_file(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_file(str(tmp_path))
    monkeypatch.setattr("asgi_gateway_plugins.networks.LARGEST", 9)
    (tmp_path / "large").write_text("10.0.0.0/8")
    with pytest.raises(ConfigError, match="larger than 9 bytes"):
        read_file(str(tmp_path / "large"))
