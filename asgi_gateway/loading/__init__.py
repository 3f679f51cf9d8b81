"""The only place that reads configuration files."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import GatewayConfig, PluginsConfig
from ..errors import ConfigError, Problem
from ..files import read_whole
from ..places import find_place
from ..plugins import Plugins
from ..references import dangling
from .diagnosis import Diagnosis, masked
from .formats import FORMATS, Document
from .interpolation import Interpolation


def load(
    path: str | os.PathLike[str],
    extra: Iterable[object] = (),
    *,
    content: bytes | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[GatewayConfig, Plugins]:
    """The configuration in a file, and the plugins that it allows; `extra` are more than the installed ones.

    `content` is what the file said, where it was read before. ConfigError holds everything that is wrong,
    each with its line. Blocks while it reads.
    """
    return Loading(read(Path(path), content), environ).run(extra)


def parse(
    document: Mapping[str, Any], extra: Iterable[object] = (), *, environ: Mapping[str, str] = os.environ
) -> tuple[GatewayConfig, Plugins]:
    """The same, out of what a file would say."""
    return Loading(Document(document), environ).run(extra)


def locate(
    error: ConfigError,
    path: str | os.PathLike[str],
    content: bytes | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> ConfigError:
    """The same problems with file and line, for an error that was found after a file was read."""
    try:
        document = read(Path(path), content)
    except ConfigError:
        return error
    return ConfigError(
        problem
        if problem.file
        else replace(
            problem, file=document.file, line=document.find(find_place(problem.where, document.data))
        )
        for problem in hide(error, document.data, environ=environ).problems
    )


def hide(error: ConfigError, data: Any, *, environ: Mapping[str, str] = os.environ) -> ConfigError:
    """The same problems, with what is written in the place of what was interpolated into it."""
    interpolation = Interpolation(environ)
    interpolation.fill(data)
    filled = interpolation.filled.values()
    return ConfigError(
        replace(problem, what=masked(problem.what, filled), hint=masked(problem.hint, filled))
        for problem in error.problems
    )


def content_of(path: Path) -> bytes:
    """The bytes of a file."""
    try:
        return read_whole(path)
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None


def read(path: Path, content: bytes | None = None) -> Document:
    """What a file says, nothing replaced."""
    file = str(path)
    content = content_of(path) if content is None else content
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(Problem("not UTF-8", file=file, line=line)) from None
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            Problem("the name does not tell the format", hint=f"it ends in {', '.join(FORMATS)}", file=file)
        )
    if not text.strip():
        raise ConfigError(Problem("the file is empty", file=file))
    try:
        return replace(FORMATS[path.suffix.lower()](text), file=file)
    except ConfigError as error:
        raise ConfigError(replace(problem, file=file) for problem in error.problems) from None


class Loading:
    """One document on its way to a configuration."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        if not isinstance(document.data, Mapping):
            line = document.find(())
            raise ConfigError(Problem("must be a mapping", "", "as in `routes: [...]`", document.file, line))
        interpolation = Interpolation(environ)
        self._data: dict[str, Any] = interpolation.fill(dict(document.data))
        self._document = document
        self._filled = interpolation.filled
        self._unfilled = Diagnosis(document, {}, Plugins()).mistakes(interpolation.failed)

    def run(self, extra: Iterable[object]) -> tuple[GatewayConfig, Plugins]:
        """The configuration and its plugins, or everything that is wrong."""
        plugins = self._plugins(extra)
        diagnosis = Diagnosis(self._document, self._filled, plugins)
        found = diagnosis.mistakes(dangling(self._data))
        try:
            config = GatewayConfig.model_validate(self._data, context={"plugins": plugins})
        except ValidationError as error:
            raise ConfigError(self._all([*diagnosis.errors(error), *found])) from None
        if problems := self._all(found):
            raise ConfigError(problems)
        return config, plugins

    def _plugins(self, extra: Iterable[object]) -> Plugins:
        """Plugins come first: they decide which names have a meaning."""
        diagnosis = Diagnosis(self._document, self._filled, Plugins())
        try:
            section = PluginsConfig.model_validate(self._data.get("plugins", {}))
            return Plugins.installed(extra, disable=section.disable, allow=section.allow)
        except ValidationError as error:
            raise ConfigError(self._all(diagnosis.errors(error, ("plugins",)))) from None
        except ConfigError as error:
            here = diagnosis.problem(("plugins",), "")
            found = [replace(problem, file=here.file, line=here.line) for problem in error.problems]
            raise ConfigError(self._all(found)) from error

    def _all(self, found: Iterable[Problem]) -> list[Problem]:
        """Everything that is wrong, from the top of the file down. What could not be filled is named once."""
        told = {problem.where for problem in self._unfilled}
        return sorted(
            [*self._unfilled, *(problem for problem in found if problem.where not in told)],
            key=lambda problem: problem.line,
        )
