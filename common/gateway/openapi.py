"""The API document of everything behind a gateway."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from common.api.problems import problems
from common.discovery.directory import Directory
from common.discovery.models import Instance, Status
from common.gateway import openapi_merge
from common.telemetry import context

logger = logging.getLogger(__name__)

# What one service or another takes to tell may not keep the page waiting.
PATIENCE_SECONDS = 2.0
FRESH_SECONDS = 2.0

LARGEST_DOCUMENT_BYTES = 4 * 1024 * 1024

AWAY = "This service is away now; this is what it said last."

# Of what the gateway answers itself to a request that it would pass on.
OURS = {
    str(status): answer for status, answer in problems(400, 408, 413, 414, 429, 431, 502, 503, 504).items()
}


class ApiDocument:
    """The services' documents, merged; a service that is away keeps its last one.

    `paths` says which service answers which path.
    """

    SIGN_IN: ClassVar[dict[str, Any]] = {
        "type": "oauth2",
        "description": "Sign in with name and password.",
        "flows": {"password": {"tokenUrl": "/login", "scopes": {}}},
    }

    def __init__(
        self, paths: Mapping[str, str], directory: Directory, transport: httpx.AsyncBaseTransport
    ) -> None:
        self._paths = paths
        self._directory = directory
        self._transport = transport
        self._last: dict[str, openapi_merge.Document] = {}
        self._away: set[str] = set()
        self._rendered = b""
        self._fresh_until = 0.0
        self._refreshing = asyncio.Lock()

    async def render(self, base: openapi_merge.Document) -> bytes:
        """`base` with all of it, as JSON; however many ask, the services are asked once in a while."""
        async with self._refreshing:
            if time.monotonic() >= self._fresh_until:
                await self._refresh_all()
                self._rendered = json.dumps(self._merged_with(base)).encode()
                self._fresh_until = time.monotonic() + FRESH_SECONDS
        return self._rendered

    def _merged_with(self, base: openapi_merge.Document) -> openapi_merge.Document:
        merged = openapi_merge.merge(base, self._last)
        away = {path: item for path, item in merged["paths"].items() if self._paths.get(path) in self._away}
        for operation in openapi_merge.operations({"paths": away}):
            operation["description"] = f"*{AWAY}*\n\n{operation.get('description', '')}"
        merged.setdefault("components", {}).setdefault("securitySchemes", {})["login"] = self.SIGN_IN
        return _decorated(merged)

    async def _refresh_all(self) -> None:
        names = dict.fromkeys(self._paths.values())
        asking = [asyncio.create_task(self._refresh(name)) for name in names]
        _, late = await asyncio.wait(asking, timeout=PATIENCE_SECONDS)
        for one in late:
            one.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._last = {name: self._last[name] for name in names if name in self._last}

    async def _refresh(self, name: str) -> None:
        self._away.add(name)
        for instance in self._directory.instances(name):
            if instance.status is Status.DRAINING:
                continue
            try:
                offered = self._offered(name, await self._fetch(instance))
                _decorated(openapi_merge.merge({"paths": {}}, {name: offered}))
            except httpx.HTTPError:
                continue
            except Exception as exc:  # whatever one instance says, the others are shown
                logger.warning("%s at %s has no API document: %r", name, instance.netloc, exc)
                continue
            self._last[name] = offered
            self._away.remove(name)
            return

    def _offered(self, name: str, document: openapi_merge.Document) -> openapi_merge.Document:
        paths = {path: item for path, item in document["paths"].items() if self._paths.get(path) == name}
        return document | {"paths": paths}

    async def _fetch(self, instance: Instance) -> openapi_merge.Document:
        request = httpx.Request(
            "GET",
            f"http://{instance.netloc}/openapi.json",
            headers=context.outgoing(),
            extensions={"target": b"/openapi.json"},
        )
        answer = await self._transport.handle_async_request(request)
        try:
            text = b""
            async for chunk in answer.aiter_raw():
                text += chunk
                if len(text) > LARGEST_DOCUMENT_BYTES:
                    raise ValueError("too large")
            document: openapi_merge.Document = json.loads(text)
        finally:
            await answer.aclose()
        answer.raise_for_status()
        return document


def _decorated(document: openapi_merge.Document) -> openapi_merge.Document:
    """With what the gateway itself adds to the operations of others."""
    for operation in openapi_merge.operations(document):
        _offer_sign_in(operation)
        if "gateway" not in operation["tags"] and "health" not in operation["tags"]:
            operation["responses"] = OURS | operation["responses"]
    return document


def _offer_sign_in(operation: openapi_merge.Document) -> None:
    """Wherever a token is taken, let Swagger get one by name and password: only here is there a /login."""
    security = operation.get("security", [])
    if {"bearer": []} in security:
        security.insert(security.index({"bearer": []}) + 1, {"login": []})
