"""Being found: register, heartbeat, deregister."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self
from uuid import uuid4

import httpx
from pydantic import ValidationError

from common.discovery.models import HEARTBEAT_SECONDS, Lease, Status, addresses, tls
from common.settings import netloc
from common.version import VERSION

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1
# The first checks follow quickly: a process that has just started is soon healthy.
FIRST_CHECK_SECONDS = 0.1

TIMEOUT = httpx.Timeout(2.0)
KEEP_ALIVE_SECONDS = 3 * HEARTBEAT_SECONDS
# A process has 5 seconds to end, whatever the registry does.
DEREGISTER_TIMEOUT_SECONDS = 0.5
SHUTDOWN_TIMEOUT = httpx.Timeout(DEREGISTER_TIMEOUT_SECONDS)
# A service that cannot reach itself where it would be found is mistaken about its address.
SELF_CHECK_SECONDS = 5
# Processes that share a port each get a part of the connections: one that is kept reaches the same for ever.
NEW_CONNECTIONS = httpx.Limits(max_keepalive_connections=0)
REGISTRY_START_SECONDS = 20

# In every response to GET /livez, so that a process knows its own from another's on the same port.
PROCESS_ID = str(uuid4())
PROCESS_ID_HEADER = "X-Process-ID"


class Registrations:
    """Keeps one instance registered with each of several registries, which know nothing of each other."""

    def __init__(
        self,
        registry_url: str | None,
        token: str,
        service_name: str,
        address: tuple[str, int],
        is_healthy: Callable[[], Awaitable[bool]],
        shares_address: bool = False,
    ) -> None:
        """Several processes of the service may have the address, if all say that they share it."""
        self._registrations = [
            Registration(url, token, service_name, address, is_healthy, shares_address)
            for url in addresses(registry_url)
        ]

    async def __aenter__(self) -> Self:
        for registration in self._registrations:
            await registration.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        # All at once: the process has a few seconds to end, whatever one registry does.
        await asyncio.gather(*(one.__aexit__(*failure) for one in self._registrations))

    async def drain(self) -> None:
        """Tell the registries that callers shall send nothing more."""
        await asyncio.gather(*(one.drain() for one in self._registrations))


class Registration:
    """Keeps one instance registered. Nothing that happens to the registry stops or slows the service."""

    def __init__(
        self,
        registry_url: str,
        token: str,
        service_name: str,
        address: tuple[str, int],
        is_healthy: Callable[[], Awaitable[bool]],
        shares_address: bool = False,
    ) -> None:
        self._service_name = service_name
        self._address = address
        # Not a field: a registry of the last version refuses those that it does not know.
        self._register_path = "/register?shares_address=true" if shares_address else "/register"
        self._is_healthy = is_healthy
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._registry = httpx.AsyncClient(
            base_url=registry_url,
            headers=headers,
            timeout=TIMEOUT,
            # One connection for all heartbeats: by default it would close just as the next one is due.
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            trust_env=False,
            verify=tls(registry_url),
        )
        self._name = self._registry.base_url.netloc.decode()
        self._instance_id: str | None = None
        self._heartbeat_lock = asyncio.Lock()
        self._is_stopping = False
        self._last_warning = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._registry_expected = time.monotonic() + REGISTRY_START_SECONDS
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DEREGISTER_TIMEOUT_SECONDS):
                await self._stop()
        await self._registry.aclose()

    async def drain(self) -> None:
        """Tell the registry that callers shall send nothing more."""
        await self._stop_heartbeats()  # its next heartbeat could say otherwise
        if self._instance_id:
            status = {"status": Status.DRAINING}
            await self._call("POST", f"/heartbeat/{self._instance_id}", status, SHUTDOWN_TIMEOUT)

    async def _stop(self) -> None:
        await self._stop_heartbeats()
        if self._instance_id:
            await self._call("DELETE", f"/deregister/{self._instance_id}", limit=SHUTDOWN_TIMEOUT)

    async def _stop_heartbeats(self) -> None:
        self._is_stopping = True
        if self._task:
            # A heartbeat in flight would arrive after the last status; and an instance that is registering
            # has no id yet, without which it cannot deregister.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heartbeat_lock.acquire(), DEREGISTER_TIMEOUT_SECONDS)
                self._heartbeat_lock.release()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await self._wait_until_listening()
        sent, due, check = None, 0.0, FIRST_CHECK_SECONDS
        while True:
            status = Status.UP if await self._is_healthy() else Status.DEGRADED
            if status is not sent or time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT_SECONDS
                async with self._heartbeat_lock:
                    sent = await self._heartbeat(status)
            await asyncio.sleep(max(0, min(check * random.uniform(0.8, 1.2), due - time.monotonic())))
            check = min(2 * check, CHECK_SECONDS)

    async def _wait_until_listening(self) -> None:
        """A listed instance gets requests; a test's app, which listens nowhere, is never listed."""
        expected = time.monotonic() + SELF_CHECK_SECONDS
        async with httpx.AsyncClient(
            timeout=TIMEOUT,
            limits=NEW_CONNECTIONS,
            trust_env=False,
            verify=False,  # noqa: S501  plain HTTP
        ) as client:
            while not await self._is_serving(client):
                if time.monotonic() > expected:
                    self._warn_once(f"not registered: this process cannot be reached at {self._address}")
                await asyncio.sleep(0.05)

    async def _is_serving(self, client: httpx.AsyncClient) -> bool:
        try:
            response = await client.get(f"http://{netloc(*self._address)}/livez")
        except httpx.HTTPError:
            return False
        return bool(response.headers.get(PROCESS_ID_HEADER) == PROCESS_ID)

    async def _heartbeat(self, status: Status) -> Status | None:
        """Register if need be, and say how we are; returns the status if the registry has it now."""
        response = await self._send_heartbeat(status)
        if response is not None and response.status_code == 404:
            # The registry does not know us (any more): it was restarted, or our lease ran out.
            self._instance_id = None
            response = await self._send_heartbeat(status)
        if response is None or not response.is_success:
            return None
        self._last_warning = ""
        return status

    async def _send_heartbeat(self, status: Status) -> httpx.Response | None:
        if self._instance_id is None and not await self._register(status):
            return None
        return await self._call("POST", f"/heartbeat/{self._instance_id}", {"status": status})

    async def _register(self, status: Status) -> bool:
        host, port = self._address
        instance: dict[str, object] = {"service_name": self._service_name, "host": host, "port": port}
        if status is not Status.UP:
            # Until the first heartbeat it would otherwise count as up.
            instance["status"] = status
        registered = await self._call("POST", self._register_path, instance | {"version": VERSION})
        if registered is None or not registered.is_success:
            return False
        try:
            self._instance_id = Lease.model_validate_json(registered.content).instance_id
        except ValidationError:
            self._warn_once(f"what answers at {self._name} is not a registry")
            return False
        logger.info("registered as an instance of %s", self._service_name)
        return True

    async def _call(
        self, method: str, path: str, body: object = None, limit: httpx.Timeout = TIMEOUT
    ) -> httpx.Response | None:
        try:
            response = await self._registry.request(method, path, json=body, timeout=limit)
        except httpx.HTTPError as exc:
            if self._is_registry_expected():
                self._warn_once(f"the registry at {self._name} cannot be reached: {exc!r}")
            return None
        if response.is_error and response.status_code != 404:
            self._warn_once(f"the registry at {self._name} refused {method} {path}: {response.status_code}")
        return response

    def _is_registry_expected(self) -> bool:
        """A process may well start before its registry: that is no warning yet."""
        return self._instance_id is not None or time.monotonic() > self._registry_expected

    def _warn_once(self, warning: str) -> None:
        """Once, not every second for as long as it lasts; at debug level while stopping."""
        if warning != self._last_warning:
            logger.log(logging.DEBUG if self._is_stopping else logging.WARNING, warning)
        self._last_warning = warning
