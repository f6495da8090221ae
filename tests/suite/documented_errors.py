"""Whether each error of a running suite is in its API document."""

import re
from typing import Any

import httpx2

from common.errors import PROBLEM_JSON


class DocumentedErrors:
    """A hook for a client's responses, which fails for an error that the gateway's document does not have."""

    def __init__(self, document: dict[str, Any]) -> None:
        literal_first = sorted(document["paths"].items(), key=lambda item: "{" in item[0])
        self._paths = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), item) for path, item in literal_first]

    def __call__(self, response: httpx2.Response) -> None:
        operation = self._operation(response.request)
        if operation and response.headers.get("Content-Type") == PROBLEM_JSON:
            response.read()
            status, code = str(response.status_code), response.json()["code"]
            documented = operation["responses"].get(status, {}).get("content", {})
            examples = documented.get(PROBLEM_JSON, {}).get("examples", {})
            assert code in examples, f"{response.request.url.path}: document {status} {code} with problems(…)"

    def _operation(self, request: httpx2.Request) -> dict[str, Any] | None:
        for pattern, item in self._paths:
            if pattern.fullmatch(request.url.path):
                operation: dict[str, Any] | None = item.get(request.method.lower())
                return operation
        return None
