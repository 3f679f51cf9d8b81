"""The only place that reads the command line."""

import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from . import __version__
from .errors import ConfigError

END = 10.0
"""Seconds that the interpreter has to end, when everything is closed."""
FILE = click.argument("file", type=click.Path(dir_okay=False))


class Commands(click.Group):
    """A wrong declaration ends any command with its problems, one to a line, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        # As with `python -m`: what stands in the current folder can be named in a file and imported.
        if (here := os.getcwd()) not in sys.path and "" not in sys.path:
            sys.path.insert(0, here)
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(error, err=True)
            ctx.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="asgi-gateway")
def main() -> None:
    """An API gateway made of ASGI components.

    Exit codes: 0 all is well; 1 the configuration cannot be used, or the server cannot start; 2 the command
    is not written rightly.
    """


@main.command()
@FILE
@click.option("--host", help="Listen on this address instead of the file's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that share the address.")
@click.option("--reload", is_flag=True, help="Read the file again when it changes.")
@click.option(
    "--last-good",
    type=click.Path(dir_okay=False),
    help="Keep here what could last be used, and start with it if FILE cannot be.",
)
def run(
    file: str,
    host: str | None,
    port: int | None,
    workers: int | None,
    reload: bool,
    last_good: str | None,
) -> None:
    """Serve FILE until SIGTERM or Ctrl-C. SIGHUP reads it again."""
    from .server.holding import hold

    hold()
    # They take a while.
    from .server.run import run
    from .server.watchdog import deadman

    code = run(file, host=host, port=port, workers=workers, reload=reload, last_good=last_good)
    # A plugin's thread that never ends would hold up the end of the process.
    deadman(END, code)
    sys.exit(code)


@main.command()
@FILE
def check(file: str) -> None:
    """Show how FILE is built, or what is wrong.

    Each route and upstream with its components, outermost first; exit code 1 and all problems otherwise.
    """
    from .gateway import Gateway
    from .showing import checked

    gateway = Gateway.load(file)
    if gateway.config.server.tls:
        from .server.tls import server_context

        server_context(gateway.config.server.tls)
    show(checked(gateway.plan, gateway.warnings))


@main.command()
@FILE
def routes(file: str) -> None:
    """List the routes of FILE."""
    from .gateway import Gateway
    from .showing import routes

    show(routes(Gateway.load(file).plan))


@main.command()
def plugins() -> None:
    """List the installed plugins and what they offer."""
    from .plugins import Plugins
    from .showing import installed

    show(installed(Plugins.installed()))


@main.command()
def schema() -> None:
    """Print the JSON Schema of a file, for editors.

    It holds the options of all installed components.
    """
    import json

    from .plugins import Plugins
    from .schema import schema

    click.echo(json.dumps(schema(Plugins.installed()), indent=2))


@main.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Listen on this port instead of a free one."
)
def demo(port: int) -> None:
    """Serve an example, and print what to try."""
    from .server.demo import demo

    sys.exit(demo(port))


def show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
