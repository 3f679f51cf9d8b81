"""Draws a flame graph: how often each stack of calls was seen, as a picture in SVG."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import PurePath

WIDTH = 1200
ROW = 17
"""Height of a call, in pixels."""
LEAST = 2.0
"""Calls that would be narrower are left out, in pixels."""
LETTER = 6.6
"""Width of a letter, in pixels."""
COLOURS = {"asgi_gateway": "#f4a259", "uvicorn": "#8cb369", "other": "#c9cba3"}
OURS = ("asgi_gateway", "asgi_gateway_plugins")
PARTS = {
    "the server: requests read, answers written": ("asgi_gateway/server/", "uvicorn/"),
    "connections to the upstream: requests written, answers read": ("asgi_gateway/transport/",),
    "the door: fields, path, route": tuple(
        f"asgi_gateway/{name}.py" for name in ("door", "paths", "routing", "precedence", "patterns")
    ),
    "the proxy: heads of requests, the answer on its way": tuple(
        f"asgi_gateway/{name}.py" for name in ("proxy", "hops", "forwarding")
    ),
    "components": ("asgi_gateway_plugins/",),
    "the kernel: request, call, deadlines, balancing": ("asgi_gateway/",),
}
REST = "the event loop, with its own system calls"


@dataclass(slots=True)
class Frame:
    """One function, as it was called from those above it."""

    name: str
    samples: int = 0
    calls: "dict[str, Frame]" = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((frame.depth() for frame in self.calls.values()), default=0)


def fold(lines: Iterable[str], first: str = "") -> Frame:
    """Read stacks, one on each line as `outer (file);inner (file) 12`; if `first` is given, what is below
    it.
    """
    root = Frame("all")
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        names = [label(call) for call in stack.split(";")]
        if first:
            if first not in names:
                continue
            names = names[names.index(first) + 1 :]
        frame = root
        frame.samples += int(count)
        for name in names:
            frame = frame.calls.setdefault(name, Frame(name))
            frame.samples += int(count)
    return root


def parts(root: Frame) -> dict[str, int]:
    """How many samples each part of the gateway had for itself."""
    found = dict.fromkeys((*PARTS, REST), 0)
    waiting = [root]
    while waiting:
        frame = waiting.pop()
        part = next((part for part, files in PARTS.items() if frame.name.startswith(files)), REST)
        found[part] += frame.samples - sum(below.samples for below in frame.calls.values())
        waiting += frame.calls.values()
    return found


def label(call: str) -> str:
    """`function (path/to/package/module.py)` as `package/module.py function`: nobody's folders are shown."""
    function, _, place = call.partition(" (")
    path = PurePath(place.rstrip(")").partition(":")[0])
    parts = path.parts
    known = next((at for at, part in enumerate(parts) if part in (*OURS, "uvicorn", "asyncio")), None)
    shown = "/".join(parts[known:]) if known is not None else path.name
    return f"{shown} {function.replace('<locals>.', '')}"


def draw(root: Frame, title: str) -> str:
    """The picture: callers below, the width is the part of all samples, names in full as tooltips."""
    height = (root.depth() + 2) * ROW
    shapes = "\n".join(rectangles(root, root.samples or 1, 0.0, height - 2 * ROW))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="4" y="13">{escape(title)}</text>\n{shapes}\n</svg>\n'
    )


def rectangles(frame: Frame, all_samples: int, left: float, top: float) -> Iterator[str]:
    width = frame.samples / all_samples * WIDTH
    if width < LEAST:
        return
    share = frame.samples / all_samples
    letters = int((width - 4) / LETTER)
    shown = frame.name if len(frame.name) <= letters else frame.name.split(" ")[-1][:letters]
    text = f'<text x="{left + 2:.1f}" y="{top + 12:.1f}">{escape(shown)}</text>' if letters > 2 else ""
    yield (
        f'<g><title>{escape(frame.name)}: {share:.1%}</title><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" fill="{colour(frame.name)}"/>{text}</g>'
    )
    for below in sorted(frame.calls.values(), key=lambda each: each.name):
        yield from rectangles(below, all_samples, left, top - ROW)
        left += below.samples / all_samples * WIDTH


def colour(name: str) -> str:
    package = name.split("/")[0]
    return COLOURS.get("asgi_gateway" if package in OURS else package, COLOURS["other"])
