"""A caller's address is what the nearest trusted proxies say, and nothing that a caller says (P12)."""

from ipaddress import ip_address, ip_network

from hypothesis import example, given
from hypothesis import strategies as st

from asgi_gateway.asgi import Header
from asgi_gateway.forwarding import Trusted
from tests.properties.profile import examples

TRUSTED = ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]
NETWORKS = [ip_network(text) for text in TRUSTED]

proxies = st.one_of(
    st.ip_addresses(network="10.0.0.0/8"),
    st.just(ip_address("192.0.2.7")),
    st.ip_addresses(network="fd00::/8"),
).map(str)
strangers = st.one_of(
    st.ip_addresses(network="198.51.100.0/24"),
    st.ip_addresses(network="192.0.2.8/29"),
    st.ip_addresses(network="2001:db8::/32"),
    st.ip_addresses(v=4).filter(lambda found: not any(found in network for network in NETWORKS)),
).map(str)
# fmt: off
JUNK = [
    b"", b"unknown", b"_hidden", b"a.b.c.d", b"10.0.0", b"10.0.0.1.2", b"010.0.0.1", b"256.0.0.1",
    b"10.0.0.0/8", b"[", b"]", b"[]", b"[::1", b"::1]", b"[::1]x", b"[::1]:x", b"[10.0.0.1]", b"10.0.0.1:x",
    b"1::2::3", b":80", b'"10.0.0.1"', b"for=10.0.0.1", b"\xff", b"10.0.0.1;10.0.0.2", b"10.0.0.1 10.0.0.2",
    b"localhost", b"fd00:::1", b"::ffff:10.0.0.256", b"[[::1]]", b"[::1]]",
]
# fmt: on

Hop = tuple[bytes, str]
"""As it is written, and the address that is meant; none for what is no address."""


@st.composite
def spelt(draw: st.DrawFn, address: str) -> Hop:
    """One of the spellings that proxies have for an address."""
    port = draw(st.sampled_from(["", "", ":80", ":65535"]))
    if ":" not in address:
        return f"{address}{port}".encode(), address
    text = address
    if draw(st.booleans()):
        text = ip_address(address).exploded
    if draw(st.booleans()):
        text = text.upper()
    if port or draw(st.booleans()):
        text = f"[{text}]{port}"
    return text.encode(), address


junk = st.sampled_from(JUNK).map(lambda text: (text, ""))
hops = (proxies | proxies | strangers).flatmap(spelt) | junk


def trusts(address: str) -> bool:
    found = ip_address(address)
    return any(found in network for network in NETWORKS if network.version == found.version)


def walk(peer: str, chain: list[Hop]) -> str:
    """Who asks: everything right of them is a trusted proxy, and has said so itself."""
    vouched = [peer, *(address for _, address in reversed(chain))]
    for index, address in enumerate(vouched):
        if not address:
            return vouched[index - 1]
        if not trusts(address):
            return address
    return vouched[-1]


@st.composite
def in_lines(draw: st.DrawFn, chain: list[Hop]) -> list[Header]:
    """The chain in one or several lines, among other fields."""
    lines: list[Header] = []
    written: list[bytes] = []
    for index, (text, _) in enumerate(chain):
        written.append(draw(st.sampled_from([b"", b" ", b"\t"])) + text + draw(st.sampled_from([b"", b" "])))
        if index + 1 == len(chain) or draw(st.integers(0, 3)) == 0:
            lines.append((b"x-forwarded-for", b",".join(written)))
            written = []
            if draw(st.integers(0, 3)) == 0:
                lines.append((draw(st.sampled_from([b"x-real-ip", b"forwarded"])), b"6.6.6.6"))
    return lines


chains = st.lists(hops, max_size=6).flatmap(lambda chain: st.tuples(st.just(chain), in_lines(chain)))


@examples(200)
@given(proxies, chains)
def test_the_walk_ends_where_nobody_vouches_any_more(peer: str, said: tuple[list[Hop], list[Header]]) -> None:
    chain, lines = said
    # Without a line there is nothing to walk; an empty line is one hop that is none.
    assert Trusted(TRUSTED).client(peer, lines) == walk(peer, chain)


@examples(120)
@given(
    proxies,
    st.binary(max_size=30).filter(lambda text: b"\r" not in text and b"\n" not in text)
    | st.just(b"10.0.0.1,"),
    chains,
    strangers.flatmap(spelt),
    st.lists(proxies.flatmap(spelt), max_size=3).flatmap(
        lambda chain: st.tuples(st.just(chain), in_lines(chain))
    ),
    st.booleans(),
)
def test_a_caller_chooses_nothing_to_the_left_of_itself(
    peer: str,
    forged: bytes,
    more: tuple[list[Hop], list[Header]],
    caller: Hop,
    behind: tuple[list[Hop], list[Header]],
    same_line: bool,
) -> None:
    """Whatever a caller sends, the first trusted proxy puts its address behind it."""
    text, address = caller
    last = forged + b", " + text if same_line else text
    lines = [*more[1], *([] if same_line else [(b"x-forwarded-for", forged)]), (b"x-forwarded-for", last)]
    assert Trusted(TRUSTED).client(peer, lines + behind[1]) == address


@examples(100)
@given(strangers | proxies, st.booleans())
@example("10.255.255.255", True)
@example("11.0.0.0", True)
def test_an_address_in_ipv6_clothes_is_trusted_as_what_it_is(address: str, dressed: bool) -> None:
    text = f"::ffff:{address}" if dressed and ":" not in address else address
    assert (text in Trusted(TRUSTED)) is trusts(address)


@examples(50)
@given(strangers | proxies | st.sampled_from(["", "testclient", "::1%lo", "10.0.0.1:80"]))
def test_nothing_is_trusted_that_no_network_names(address: str) -> None:
    assert address not in Trusted([])
    assert (address in Trusted(["unix"])) is (address == "")
