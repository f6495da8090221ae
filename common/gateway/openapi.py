"""The API document of everything behind a gateway."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence

import httpx

from common.api.openapi import Document, operations
from common.api.problems import Responses, merged, problems
from common.discovery.directory import Directory
from common.discovery.models import Instance, Status
from common.errors import Problem
from common.gateway import errors, openapi_merge
from common.gateway.fetch import fetch
from common.gateway.transport import Transport

logger = logging.getLogger(__name__)

# The page does not wait longer for a slow service.
FETCH_TIMEOUT_SECONDS = 2.0
CACHE_SECONDS = 2.0

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024

UNAVAILABLE_NOTE = "This service is away now; this is what it said last."


class ApiDocument:
    """The services' documents, merged; an unavailable service keeps its last one.

    `paths` has the service of each path, `token_url` is where a username and
    password give a token, and `refusals` are errors that any request may get.
    """

    def __init__(
        self,
        paths: Mapping[str, str],
        token_url: str,
        directory: Directory,
        transport: Transport,
        refusals: Sequence[Problem] = (),
    ) -> None:
        self._sign_in = {
            "type": "oauth2",
            "description": "Sign in with name and password.",
            "flows": {"password": {"tokenUrl": token_url, "scopes": {}}},
        }
        self._paths = paths
        self._directory = directory
        self._transport = transport
        self._refusals = refusals
        self._last: dict[str, Document] = {}
        self._unavailable: set[str] = set()
        self._rendered = b""
        self._cached_until = 0.0
        self._refreshing = asyncio.Lock()

    async def render(self, base: Document) -> bytes:
        """`base` with all of it, as JSON; made at most once in CACHE_SECONDS, however many requests come."""
        async with self._refreshing:
            if time.monotonic() >= self._cached_until:
                await self._refresh_all()
                self._rendered = json.dumps(self._merged_with(base)).encode()
                self._cached_until = time.monotonic() + CACHE_SECONDS
        return self._rendered

    def _merged_with(self, base: Document) -> Document:
        document = openapi_merge.merge(base, self._last)
        unavailable = {
            path: item
            for path, item in document["paths"].items()
            if self._paths.get(path) in self._unavailable
        }
        for operation in operations({"paths": unavailable}):
            operation["description"] = f"*{UNAVAILABLE_NOTE}*\n\n{operation.get('description', '')}"
        document.setdefault("components", {}).setdefault("securitySchemes", {})["login"] = self._sign_in
        return self._with_gateway_errors(document)

    async def _refresh_all(self) -> None:
        names = dict.fromkeys(self._paths.values())
        fetching = [asyncio.create_task(self._refresh(name)) for name in names]
        _, late = await asyncio.wait(fetching, timeout=FETCH_TIMEOUT_SECONDS)
        for one in late:
            one.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._last = {name: self._last[name] for name in names if name in self._last}

    async def _refresh(self, name: str) -> None:
        self._unavailable.add(name)
        for instance in self._directory.instances(name):
            if instance.status is Status.DRAINING:
                continue
            try:
                offered = self._routed_paths(name, await self._fetch(instance))
                self._with_gateway_errors(openapi_merge.merge({"paths": {}}, {name: offered}))
            except httpx.HTTPError:
                continue
            except Exception as exc:  # whatever one instance says, the others are shown
                logger.warning("%s at %s has no API document: %r", name, instance.netloc, exc)
                continue
            self._last[name] = offered
            self._unavailable.remove(name)
            return

    def _routed_paths(self, name: str, document: Document) -> Document:
        paths = {path: item for path, item in document["paths"].items() if self._paths.get(path) == name}
        if not paths:
            raise ValueError("it is another service's")
        return document | {"paths": paths}

    def _with_gateway_errors(self, document: Document) -> Document:
        """With the errors that the gateway itself adds to a service's operations."""
        responses = {name: self._gateway_errors(name) for name in set(self._paths.values())}
        for path, item in document["paths"].items():
            for operation in operations({"paths": {path: item}}):
                _add_login_flow(operation)
                if path in self._paths:
                    operation["responses"] = merged(responses[self._paths[path]], operation["responses"])
        return document

    def _gateway_errors(self, name: str) -> Responses:
        documented = problems(*self._refusals, *errors.possible(name))
        return {str(status): response for status, response in documented.items()}

    async def _fetch(self, instance: Instance) -> Document:
        text = await fetch(self._transport, instance.netloc, "/openapi.json", MAX_DOCUMENT_BYTES)
        document: Document = json.loads(text)
        return document


def _add_login_flow(operation: Document) -> None:
    """Wherever a token is taken, let Swagger get one by name and password: only here is there a /login."""
    security = operation.get("security", [])
    if {"bearer": []} in security:
        security.insert(security.index({"bearer": []}) + 1, {"login": []})
