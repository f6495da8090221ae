"""A uvicorn server of the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn

from tests.polling import eventually


@contextmanager
def serving(server: uvicorn.Server) -> Iterator[None]:
    """The server listens meanwhile, in a thread."""
    thread = Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        thread.join()
