"""A backing server that one test has for itself, to do with it what it likes."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import server_processes

Kind = Callable[[Path, int], server_processes.Server]


class OwnServer:
    """It keeps its port and its data from one start to the next."""

    def __init__(self, kind: Kind, data: Path) -> None:
        self._kind = kind
        self._data = data
        self._server: server_processes.Server | None = None
        self.port = server_processes.free_port()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server = self._kind(self._data, self.port)

    def stop(self) -> None:
        """Stop it as it likes to be stopped, whatever was done to it before."""
        if self._server:
            self.resume()
            self._server.stop()

    def kill(self) -> None:
        self.end_by(signal.SIGKILL)

    def end_by(self, number: signal.Signals) -> None:
        self.signal(number)
        self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.is_running()

    def hang(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        assert self._server, "it was never started"
        return self._server._process


# What the fixture `own` is: makes one, which the test starts.
Own = Callable[[Kind], OwnServer]
numbers = count()


@contextmanager
def own_servers(folder: Path) -> Iterator[Own]:
    """Makes servers with their data in folders of their own, below this one; they end with the `with`."""
    with ExitStack() as stack:

        def own(kind: Kind) -> OwnServer:
            server = OwnServer(kind, folder / str(next(numbers)) / "data")
            stack.callback(server.stop)
            return server

        yield own
