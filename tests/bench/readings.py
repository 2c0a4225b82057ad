"""What the kernel says of a process: CPU time used and memory resident."""

from pathlib import Path


def cpu_ns(pid: int) -> int:
    """Nanoseconds on a CPU so far, over all of its threads (exact, not in clock ticks)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def rss_kib(pid: int) -> int:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/{pid}/status has no VmRSS: the process is gone or a kernel thread")
