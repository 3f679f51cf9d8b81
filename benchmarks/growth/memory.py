"""How much memory processes take up."""

from contextlib import suppress
from pathlib import Path

from ..process import Process, read_processes


def family(process: Process) -> set[int]:
    """The process and all its descendants."""
    parents = {pid: parent for pid, (parent, _) in read_processes().items()}
    found, before = {process.pid}, set[int]()
    while found != before:
        before = set(found)
        found |= {pid for pid, parent in parents.items() if parent in before}
    return found


def resident_kib(process: Process) -> int:
    """KiB of a process and all its descendants that are in memory; what they share counts for each."""
    total = 0
    for pid in family(process):
        with suppress(OSError):  # it may end while we look
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total
