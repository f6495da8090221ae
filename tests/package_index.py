"""A package index on loopback, with packages that are made up."""

import base64
import contextlib
import hashlib
import io
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class PackageIndex:
    """Serves wheels as PyPI does."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        self.url = ""

    def add(self, name: str, version: str, *metadata: str, program: bytes = b"") -> str:
        """Offer a version, maybe with a program of the same name; return what locks it."""
        info = f"{name}-{version}.dist-info"
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata, ""]
        files = {
            f"{info}/METADATA": "\n".join(head).encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}-{version}.data/scripts/{name}": program,
        }
        wheel = _zipped(files, record=f"{info}/RECORD")
        self.wheels[f"{name}-{version}-py3-none-any.whl"] = wheel
        return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n"

    def page(self, package: str) -> str:
        return "".join(
            f'<a href="/{name}">{name}</a>' for name in self.wheels if name.startswith(f"{package}-")
        )


def _zipped(files: dict[str, bytes], record: str) -> bytes:
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in (files | {record: "\n".join([*rows, f"{record},,", ""]).encode()}).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, content)
    return wheel.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@contextlib.contextmanager
def serving() -> Iterator[PackageIndex]:
    index = PackageIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rstrip("/").rpartition("/")[2]
            if name in index.wheels:
                self._send("application/octet-stream", index.wheels[name])
            else:
                self._send("text/html", index.page(name).encode())

        def _send(self, media_type: str, content: bytes) -> None:
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
