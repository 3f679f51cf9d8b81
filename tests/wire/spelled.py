"""Protected paths beside open ones, and the ways to write them."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

KEY: dict[str, Any] = {"components": ["key_auth"]}
ROUTES: list[dict[str, Any]] = [
    {"name": "prefix", "path": "/admin/*", "upstream": "plain", **KEY},
    {"name": "exact", "path": "/secret", "upstream": "plain", **KEY},
    {"name": "variable", "path": "/users/{id}/keys", "upstream": "plain", **KEY},
    {"name": "stripped", "path": "/shop/admin/*", "strip_prefix": "/shop", "upstream": "shop", **KEY},
    {"name": "shop", "path": "/shop/*", "strip_prefix": "/shop", "upstream": "shop"},
    {"name": "rewritten", "path": "/old/admin/*", "rewrite": "/v2/admin/{*}", "upstream": "old", **KEY},
    {"name": "old", "path": "/old/*", "rewrite": "/v2/{*}", "upstream": "old"},
    {"name": "any", "path": "/*", "upstream": "plain"},
]
PROTECTED = {
    "plain": re.compile(r"/admin(/.*)?|/secret|/users/[^/]+/keys"),
    "shop": re.compile(r"/admin(/.*)?"),
    "old": re.compile(r"/v2/admin(/.*)?"),
}
"""What each upstream serves only to those who have a key."""


def careless(target: bytes) -> str:
    """The path that a server sees which decodes first, cuts parameters off, and takes each slash for one."""
    path = unquote_to_bytes(target.partition(b"?")[0]).decode("latin-1")
    found: list[str] = []
    for part in re.split(r"[/\\]+", re.sub(r";[^/\\]*", "", path))[1:]:
        if part == "..":
            del found[-1:]
        elif part != ".":
            found.append(part)
    return "/" + "/".join(found)


def spellings() -> Iterator[str]:
    """A few hundred ways to write the protected paths."""
    slashes = [
        "//",
        "/./",
        "/%2e/",
        "/x/../",
        "/x/%2E%2e/",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "/;/",
        "/;a=b/",
        "/.;/",
    ]
    slashes += [
        "%252f",
        "%c0%af",
        "%e0%80%af",
        "%ef%bc%8f",
        "/%00/",
        "/%20/",
        "/\t/",
        "/..;/",
        "/x/..;/",
        "/.%2f",
    ]
    fronts = [
        "/.",
        "/..",
        "/x/..",
        "/%2e",
        "/%2e%2e",
        "/;",
        "/;a",
        "\\",
        "/\\",
        "/x%2f..",
        "/.;",
        "/x/..%2f..",
    ]
    fronts += [
        "http://gw.test",
        "HTTP://GW.TEST",
        "http://gw.test/",
        "http://gw.test/x/..",
        "//gw.test",
        "/%",
    ]
    ends = [
        "",
        "/",
        "//",
        "/.",
        "/..",
        "/x/..",
        ";",
        ";a=b",
        "%3b",
        "%3B.x",
        "%00",
        "%20",
        "%09",
        "%0a",
        "%0d%0a",
    ]
    ends += [
        "?",
        "?x=1",
        "%3f",
        "#",
        "#x",
        "%23",
        "%2f",
        "%5c",
        "/%2e",
        "/%2e%2e/admin",
        "%c0%80",
        "%ff",
        "%",
    ]
    for path in ("/admin", "/admin/x", "/secret", "/users/7/keys", "/shop/admin/x", "/old/admin/x"):
        _, *segments = path.split("/")
        yield from (path + end for end in ends)
        yield from (front + path for front in fronts)
        yield from (slash.join(["", *segments]) for slash in slashes)
        yield from (path.replace("/", slash, 1) for slash in slashes)
        yield from ("/" + slash.join(segments) for slash in slashes)
        for segment in segments:
            for write in ("%%%02x", "%%%02X", "%%25%02x", "%%c1%%%02x", "%%u00%02x"):
                yield path.replace(segment, write % ord(segment[0]) + segment[1:])
                yield path.replace(segment, "".join(write % ord(sign) for sign in segment))
