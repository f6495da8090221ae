"""A real Chromium without a window, told what to do by its DevTools protocol."""

import base64
import json
import os
import subprocess
from pathlib import Path
from threading import Timer
from typing import Any, Self

from tests.polling import PATIENCE_SECONDS, eventually

# Chromium speaks the protocol on its descriptors 3 and 4: messages of JSON, each with a zero byte at its end.
MOVE_PIPES = 'exec "$@" 3<&0 4>&1 </dev/null >&2'
END = b"\0"


class Browser:
    """One page; `complaints` are the errors and warnings of the browser since it was opened."""

    def __init__(self, program: str, data: Path) -> None:
        # Root cannot use Chromium's sandbox; the page is our own.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", *sandbox]
        command = [program, *options, f"--user-data-dir={data}", "--remote-debugging-pipe"]
        self._command = ["/bin/sh", "-c", MOVE_PIPES, "sh", *command]
        self._log = data / "chromium.log"
        self._number = 0
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        target = self._call("Target.createTarget", url="about:blank")
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def open(self, url: str) -> None:
        """Load a page, until it has run its scripts."""
        self.complaints.clear()
        self._call("Page.navigate", url=url)
        eventually(lambda: self.evaluate("[location.href, document.readyState]") == [url, "complete"])

    def evaluate(self, script: str) -> Any:
        """What this JavaScript gives."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme: str) -> None:
        """Let the user prefer `light` or `dark`."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self) -> bytes:
        """The visible part of the page, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        timer = Timer(PATIENCE_SECONDS, self._process.kill)  # which ends a wait in vain
        timer.start()
        try:
            self._process.stdin.write(json.dumps(message).encode() + END)
            self._process.stdin.flush()
            while (answer := self._receive()).get("id") != self._number:
                self._note(answer)
        finally:
            timer.cancel()
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._process.stdout.read(1)) != END:
            assert byte, f"Chromium has ended: {self._log.read_text()}"
            message += byte
        received: dict[str, Any] = json.loads(message)
        return received

    def _note(self, event: dict[str, Any]) -> None:
        match event["method"]:
            case "Log.entryAdded" if event["params"]["entry"]["level"] in ("error", "warning"):
                self.complaints.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(event["params"]["exceptionDetails"]))
