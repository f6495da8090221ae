"""The API document of everything behind a gateway."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from common import openapi, telemetry
from common.errors import problems
from common.registry import Directory, Instance, Status

# What one service or another takes to tell may not keep the page waiting.
PATIENCE_SECONDS = 2.0
FRESH_SECONDS = 2.0

# Of what the gateway answers itself to a request that it would pass on.
OURS = {str(status): answer for status, answer in problems(429, 502, 503, 504).items()}


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
        self._last: dict[str, openapi.Document] = {}
        self._rendered = b""
        self._fresh_until = 0.0
        self._refreshing = asyncio.Lock()

    async def render(self, base: openapi.Document) -> bytes:
        """`base` with all of it, as JSON; however many ask, the services are asked once in a while."""
        async with self._refreshing:
            if time.monotonic() >= self._fresh_until:
                await self._refresh_all()
                self._rendered = json.dumps(self._merged_with(base)).encode()
                self._fresh_until = time.monotonic() + FRESH_SECONDS
        return self._rendered

    def _merged_with(self, base: openapi.Document) -> openapi.Document:
        merged = openapi.merge(base, self._last)
        merged.setdefault("components", {}).setdefault("securitySchemes", {})["login"] = self.SIGN_IN
        for operation in openapi.operations(merged):
            _offer_sign_in(operation)
            if "gateway" not in operation["tags"] and "health" not in operation["tags"]:
                operation["responses"] = OURS | operation["responses"]
        return merged

    async def _refresh_all(self) -> None:
        names = dict.fromkeys(self._paths.values())
        asking = [asyncio.create_task(self._refresh(name)) for name in names]
        _, late = await asyncio.wait(asking, timeout=PATIENCE_SECONDS)
        for one in late:
            one.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._last = {name: self._last[name] for name in names if name in self._last}

    async def _refresh(self, name: str) -> None:
        for instance in self._directory.instances(name):
            if instance.status is Status.DRAINING:
                continue
            try:
                document = await self._fetch(instance)
                paths = document["paths"].items()
            except (httpx.HTTPError, ValueError, LookupError, TypeError):
                continue
            offered = {path for path, service in self._paths.items() if service == name}
            self._last[name] = document | {"paths": {path: item for path, item in paths if path in offered}}
            return

    async def _fetch(self, instance: Instance) -> openapi.Document:
        request = httpx.Request(
            "GET",
            f"http://{instance.netloc}/openapi.json",
            headers=telemetry.outgoing(),
            extensions={"target": b"/openapi.json"},
        )
        answer = await self._transport.handle_async_request(request)
        try:
            document: openapi.Document = json.loads(await answer.aread())
        finally:
            await answer.aclose()
        answer.raise_for_status()
        return document


def _offer_sign_in(operation: openapi.Document) -> None:
    """Wherever a token is taken, let Swagger get one by name and password: only here is there a /login."""
    security = operation.get("security", [])
    if {"bearer": []} in security:
        security.insert(security.index({"bearer": []}) + 1, {"login": []})
