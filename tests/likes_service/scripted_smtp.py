"""A mail server that says at each step what a test wants, or waits there, or breaks off."""

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

GREETING, END = "greeting", "end of the mail"
SAYS = {GREETING: "220 ready", "DATA": "354 go ahead", "QUIT": "221 bye"}
BREAK_OFF = ""


class ScriptedServer(socketserver.ThreadingTCPServer):
    """Steps are the verbs, `GREETING` and `END`; a step with an address is that of this recipient."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.says = dict(SAYS)
        self.waits: dict[str, Event] = {}
        self.reached: list[str] = []
        self.mails: list[bytes] = []

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port

    def handle_error(self, *about: object) -> None:
        """The client broke off: nothing for the tests' own lines."""

    def wait_at(self, step: str) -> Event:
        """Wait there until the event is set."""
        return self.waits.setdefault(step, Event())

    def reply(self, step: str, detail: str = "") -> str:
        self.reached += [step, detail]
        for name in (step, detail):
            if name in self.waits:
                self.waits[name].wait()
        return self.says.get(detail, self.says.get(step, "250 OK"))


class _Session(socketserver.StreamRequestHandler):
    server: ScriptedServer

    def handle(self) -> None:
        is_open = self._say(GREETING)
        while is_open and (line := self.rfile.readline().decode().strip()):
            verb, _, detail = line.partition(" ")
            is_open = self._say(verb.upper(), detail.upper()) and verb.upper() != "QUIT"
            if is_open and verb.upper() == "DATA" and self._says("DATA").startswith("354"):
                self._take()
                is_open = self._say(END)

    def _says(self, step: str) -> str:
        return self.server.says.get(step, "250 OK")

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        if line:
            self.server.mails.append(b"".join(lines))

    def _say(self, step: str, detail: str = "") -> bool:
        reply = self.server.reply(step, detail)
        if reply != BREAK_OFF:
            self.wfile.write(f"{reply}\r\n".encode())
        return reply != BREAK_OFF


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        thread = Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        for wait in server.waits.values():
            wait.set()
        server.shutdown()
        thread.join()
