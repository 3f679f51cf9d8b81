"""What a run ran on, in one line: figures without it mean little."""

import os
import platform
import sys
import sysconfig
from pathlib import Path


def optimized(arguments: str, flags: str) -> str:
    """Whether Python was built with profile-guided optimization, by what its build says about itself.

    PGO_PROF_USE_FLAG and PROFILE_TASK are no sign: every build has them.
    """
    if "--enable-optimizations" in arguments or "-fprofile-use" in flags:
        return "PGO"
    if "--with-wheel-pkg-dir=/usr/share/python-wheels" in arguments:
        # Debian and Ubuntu call the make target by hand, and remove the flags from what is installed.
        return "PGO as Debian builds it"
    return "no PGO"


def processor() -> str:
    """The model, as the system names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def machine() -> str:
    """The one line."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = sysconfig.get_config_var("PY_CORE_CFLAGS") or ""
    level = next((word for word in reversed(flags.split()) if word.startswith("-O")), "-O?")
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    build = f"{base}, {platform.python_compiler()} {level}, {optimized(arguments, flags)}"
    return (
        f"machine: Python {platform.python_version()} ({build}); "
        f"{processor()}, {os.cpu_count()} cores; {platform.system()} {platform.release()}"
    )
