"""Ports and sockets: which are free, and where somebody listens."""

from __future__ import annotations

import random
import socket
from pathlib import Path


def free_ports(names: list[str]) -> dict[str, int]:
    """Ports that nobody has now, by name; below those the system gives to clients, which a daemon might not get back.

    Raises:
        OSError: there are not that many.
    """
    found: dict[str, int] = {}
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found[names[len(found)]] = port
        if len(found) == len(names):
            return found
    raise OSError("no free ports between 20000 and 32000")


def listens(port: int) -> bool:
    """Whether somebody takes connections at this port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def accepts(path: Path) -> bool:
    """Whether somebody takes connections at this Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
