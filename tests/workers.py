"""The processes of a process's pools, for tests that kill them."""

import psutil


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """Those that are there now, the oldest first; of this process, by default."""
    found = []
    for server in psutil.Process(pid).children():
        try:
            if any("forkserver" in part for part in server.cmdline()):
                found += server.children()
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.create_time())


__all__ = ["workers_of"]
