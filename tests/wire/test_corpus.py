"""The requests in gunicorn's source distribution, valid ones and invalid ones, sent through the gateway."""

import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wire.conftest import Behind, Front
from tests.wire.strict import Strict
from tests.wire.talking import Told, talk_all

VERSION = "27.0.1"
DIGEST = "sha256:b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e"


def fetch(folder: Path) -> None:
    """Put the .http files of `tests/requests/{valid,invalid}` into the folder. Nothing else is unpacked."""
    (folder / "wanted.txt").write_text(f"gunicorn=={VERSION} --hash={DIGEST}\n")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:")
    command = (sys.executable, "-m", "pip", "download", *options, "--require-hashes", "-r", "wanted.txt")
    subprocess.run(command, cwd=folder, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        for member in source:
            if found := re.search(r"/tests/requests/((?:in)?valid)/(\w+)\.http$", member.name):
                content = source.extractfile(member)
                assert content is not None
                (folder / f"{found[1]}-{found[2]}.http").write_bytes(content.read())
    archive.unlink()


def unescape(text: bytes) -> bytes:
    """The bytes that a file means: line breaks are spelled out in it, and its own mean nothing."""
    known = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}

    def meant(found: re.Match[bytes]) -> bytes:
        return bytes.fromhex(found[1][1:].decode()) if found[1][:1] == b"x" else known[found[1]]

    return re.sub(rb"\\(x[0-9A-Fa-f]{2}|[rnt0])", meant, text.replace(b"\n", b""))


@pytest.fixture(scope="session")
def corpus(pytestconfig: pytest.Config) -> dict[str, bytes]:
    """`valid-001` and so on, and what each of them sends."""
    folder = pytestconfig.cache.mkdir(f"gunicorn-{VERSION}")  # type: ignore[union-attr]
    if not list(folder.glob("*.http")):
        fetch(folder)
    return {file.stem: unescape(file.read_bytes()) for file in sorted(folder.glob("*.http"))}


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    """Byte by byte; the rest of what is long in one piece."""
    return [bytes((byte,)) for byte in data[:1500]] + [data[1500:]]


def torn(data: bytes) -> list[bytes]:
    """Split at places that differ for each request, and are the same in each run."""
    places = sorted(random.Random(data).sample(range(len(data)), 5))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


HEAD = re.compile(rb"^((?!PROXY)\S+ \S+ HTTP/1\.1\r\n)(?!(?:.+\r\n)*?Host:)", re.MULTILINE | re.IGNORECASE)


def with_host(data: bytes) -> bytes:
    """The same with a Host, which HTTP/1.1 wants and gunicorn does not."""
    return HEAD.sub(rb"\1Host: gw.test\r\n", data)


# What gunicorn refuses, and why it is none of our business.
TAKEN = {
    "invalid-006": "a request line that is too long for that test's settings",
    "invalid-007": "fields that are too long for that test's settings",
    "invalid-008": "fields that are too many for that test's settings",
    "invalid-009": "fields that are too many for that test's settings",
    "invalid-010": "a field that is too long for that test's settings",
    "invalid-017": "a field that is too long for that test's settings",
    "invalid-019": "X-Forwarded-Ssl is not one of the fields that we believe",
    "invalid-chunked_07": "Transfer_Encoding: such a copy of a field of ours is dropped",
    "invalid-limit_header_default_01": "a field that is longer than gunicorn takes",
    "invalid-040": "Content_Length and Transfer_Encoding: such copies of fields are dropped",
    "invalid-041": "two content types frame nothing",
    "invalid-rfc9110_trailer_forbidden_host_01": "trailers go no further than the gateway",
    "invalid-rfc9112_leading_crlf_02": "more than one empty line before a request",
}
# What gunicorn takes, also with a Host, and we do not.
REFUSED = {
    "valid-002": "a Host with an equals sign",
    "valid-003": "a Host with an equals sign",
    "valid-005": "a fragment",
    "valid-013": "spaces in a chunk extension",
    "valid-025": "a coding that is not exactly chunked",
    "valid-025_line": "a coding that is not exactly chunked",
    "valid-029": "a coding that is not exactly chunked",
    "valid-030": "a coding that is not exactly chunked",
    "valid-028": "a space before a colon",
    "valid-031": "a method that nobody knows",
    "valid-031compat": "a method that nobody knows",
    "valid-031compat2": "a method that nobody knows",
    "valid-compat_obs_fold": "a folded field",
    "valid-compat_obs_fold_huge": "a folded field",
    "valid-pp_01": "the PROXY protocol",
    "valid-pp_02": "the PROXY protocol",
    "valid-pp_04": "the PROXY protocol",
    "valid-pp_05": "the PROXY protocol",
    "valid-rfc9112_smuggle_gzip_chunked_01": "a coding that is not exactly chunked",
    "valid-rfc9112_smuggle_te_identity_chunked_01": "a coding that is not exactly chunked",
    "valid-rfc9112_target_absolute_userinfo_01": "a target with user information",
    "valid-rfc9112_target_asterisk_options_01": "a target that is no path",
    "valid-rfc9112_target_authority_connect_01": "CONNECT",
    "valid-rfc9112_target_authority_ipv6_01": "CONNECT",
}
CUT_SHORT = {"valid-099"}
"""Its body is shorter than its length says."""


def outcome(told: Told) -> str:
    """What became of a request, in one word; anything else than these is a fault."""
    if told.end == "waiting" and not told.answers:
        return "waits"
    if told.refused and all(status == 200 for status in told.statuses[:-1]):
        return "refused"
    if told.end in ("usable", "closed") and told.answers and set(told.statuses) == {200}:
        return "taken"
    return f"{told.statuses} {told.end}"


def expected(name: str, data: bytes) -> str:
    if name in CUT_SHORT:
        return "waits"
    if name == "valid-100" and HEAD.match(data) is None:
        return "[400] usable"  # two slashes in a row: its framing is in order
    if name in REFUSED or (name.startswith("invalid") and name not in TAKEN):
        return "refused"
    # Of several requests the second one is not reached behind HTTP/1.0, which ends the connection.
    return "refused" if HEAD.match(data.lstrip()) else "taken"


async def differences(port: int, corpus: dict[str, bytes], split: Callable[[bytes], list[bytes]]) -> str:
    """Send all of it at the same time; what did not go as expected."""
    told = await talk_all(port, map(split, corpus.values()))
    got = {name: outcome(each) for name, each in zip(corpus, told, strict=True)}
    wanted = {name: expected(name, data) for name, data in corpus.items()}
    wrong = [name for name in corpus if got[name] != wanted[name]]
    return "\n".join(f"{name}: {got[name]}, not {wanted[name]}" for name in wrong)


@pytest.mark.parametrize("split", [whole, bytewise, torn])
async def test_every_request_is_taken_or_refused_and_nothing_ambiguous_goes_on(
    split: Callable[[bytes], list[bytes]], corpus: dict[str, bytes], upstream: Behind, front: Front
) -> None:
    strict = Strict()
    port = (await front(await upstream(strict))).port
    assert len(corpus) > 140
    assert await differences(port, corpus, split) == ""
    assert strict.breaches == []


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_with_a_host_all_that_is_valid_goes_on_with_its_body(
    transport: str, corpus: dict[str, bytes], upstream: Behind, front: Front
) -> None:
    strict = Strict()
    port = (await front(await upstream(strict), transport=transport)).port
    hosted = {name: with_host(data) for name, data in corpus.items() if name not in CUT_SHORT}
    for split in (whole, bytewise, torn):
        assert await differences(port, hosted, split) == ""
    assert strict.breaches == []
    bodies = [request.body for request in strict.requests if request.target.startswith(b"/chunked")]
    assert bodies.count(b"hello world") >= 6
