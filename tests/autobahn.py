"""The Autobahn test-suite for WebSocket. It needs a Python 2.7: without one, what asks for it is skipped."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "autobahntestsuite==25.10.1"
"""It pins what it needs itself."""
VIRTUALENV = "virtualenv==20.21.1"
"""The last ones that make environments for Python 2.7."""
ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".venv" / "autobahn"


class Missing(Exception):
    """Why there is no suite here."""


def wstest() -> Path:
    """The suite's command; installed into `.venv/autobahn` when it is first asked for. Missing."""
    command = CACHE / "python" / "bin" / "wstest"
    if not command.exists():
        install(python27())
    return command


def python27() -> str:
    """A Python 2.7 that works: of the PATH, or of pyenv."""
    found = [shutil.which("python2.7"), *sorted(Path.home().glob(".pyenv/versions/2.7.*/bin/python"))]
    for candidate in filter(None, found):
        # A shim of pyenv may be there without a Python behind it.
        asked = subprocess.run(
            [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"],
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0:
            return str(candidate)
    raise Missing("the Autobahn test-suite needs a Python 2.7, and none is here")


def install(python: str) -> None:
    tool, made = CACHE / "virtualenv", CACHE / "python"
    run(sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(tool), VIRTUALENV)
    # Under its last name from the beginning: the commands inside name their Python by its whole path.
    shutil.rmtree(made, ignore_errors=True)
    run(sys.executable, "-m", "virtualenv", "-q", "-p", python, str(made), PYTHONPATH=str(tool))
    run(str(made / "bin" / "pip"), "install", "-q", PACKAGE)


def run(*command: str, **env: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Missing(f"the Autobahn test-suite could not be installed: {' '.join(last)}")
