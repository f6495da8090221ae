"""Whether the process of this container is healthy: python healthcheck.py [/health]

It asks each port that a process of the container listens on, so one check is right for every command.
Linux only: it reads proc(5).
"""

import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

LISTENING = "0A"  # of the kernel's tcp_states.h
TIMEOUT_SECONDS = 2.5


def is_healthy(processes: Iterable[Path], path: str) -> bool:
    """Whether every port that these processes listen on answers 200 at `path`; each process has one."""
    addresses = {address for process in processes for address in listening_addresses(process)}
    return bool(addresses) and all(_answers(host, port, path) for host, port in addresses)


def listening_addresses(process: Path) -> Iterator[tuple[str, int]]:
    """The addresses that this process, a folder of /proc, listens on."""
    sockets = _sockets(process)
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for row in _lines(process / "net" / table)[1:]:
            _, local, _, state, *rest = row.split()
            if state == LISTENING and rest[5] in sockets:
                host, _, port = local.partition(":")
                yield _decoded(family, host), int(port, 16)


def _sockets(process: Path) -> set[str]:
    """The inodes of its sockets; of none where it belongs to another user, or has ended."""
    inodes = set()
    with suppress(OSError):
        for file in (process / "fd").iterdir():
            with suppress(OSError):
                inodes |= set(re.findall(r"^socket:\[(\d+)\]$", str(file.readlink())))
    return inodes


def _decoded(family: socket.AddressFamily, words: str) -> str:
    """An address as the kernel prints it: words of 32 bits, each in the machine's own order."""
    numbers = [int(words[at : at + 8], 16) for at in range(0, len(words), 8)]
    return socket.inet_ntop(family, b"".join(number.to_bytes(4, sys.byteorder) for number in numbers))


def _lines(file: Path) -> list[str]:
    with suppress(OSError):
        return file.read_text().splitlines()
    return []


def _answers(host: str, port: int, path: str) -> bool:
    connection = HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        # A wildcard address is also this machine's, but no name that a server knows itself by.
        connection.request("GET", path, headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    running = (folder for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    sys.exit(not is_healthy(running, *(sys.argv[1:] or ["/livez"])))
