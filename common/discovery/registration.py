"""Being found: register, heartbeat, deregister."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import uuid4

import httpx
from pydantic import ValidationError

from common import __version__
from common.discovery.models import HEARTBEAT_SECONDS, Lease, Status, netloc

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1
# What has just started is soon better than it was.
FIRST_CHECK_SECONDS = 0.1

TIMEOUT = httpx.Timeout(2.0)
# A process has 5 seconds to end, whatever the registry does.
GOODBYE_SECONDS = 0.5
GOODBYE = httpx.Timeout(GOODBYE_SECONDS)
# A service that cannot reach itself where it would be found is mistaken about its address.
SELF_SECONDS = 5

# In every answer to GET /livez, so that a process knows its own from another's on the same port.
PROCESS_ID = str(uuid4())
PROCESS_ID_HEADER = "X-Process-ID"


class Registration:
    """Keeps one instance registered. Nothing that happens to the registry stops or slows the service."""

    def __init__(
        self,
        registry_url: str,
        token: str,
        service_name: str,
        address: tuple[str, int],
        is_well: Callable[[], Awaitable[bool]],
    ) -> None:
        self._service_name = service_name
        self._address = address
        self._is_well = is_well
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._registry = httpx.AsyncClient(
            base_url=registry_url, headers=headers, timeout=TIMEOUT, trust_env=False
        )
        self._instance_id: str | None = None
        self._beating = asyncio.Lock()
        self._is_leaving = False
        self._complaint = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def drain(self) -> None:
        """Tell everybody, now, to send nothing more."""
        await self._stop_keeping()  # its next heartbeat could say otherwise
        if self._instance_id:
            last_word = {"status": Status.DRAINING}
            await self._ask("POST", f"/heartbeat/{self._instance_id}", last_word, GOODBYE)

    async def stop(self) -> None:
        await self._stop_keeping()
        if self._instance_id:
            await self._ask("DELETE", f"/deregister/{self._instance_id}", patience=GOODBYE)
        await self._registry.aclose()

    async def _stop_keeping(self) -> None:
        self._is_leaving = True
        if self._task:
            # A word on its way would come after the last one; and who is being registered has yet to learn
            # its id, without which nobody takes it off the list.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._beating.acquire(), GOODBYE_SECONDS)
                self._beating.release()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        await self._until_serving()
        sent, due, check = None, 0.0, FIRST_CHECK_SECONDS
        while True:
            status = Status.UP if await self._is_well() else Status.DEGRADED
            if status is not sent or time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT_SECONDS
                async with self._beating:
                    sent = await self._beat(status)
            await asyncio.sleep(max(0, min(check * random.uniform(0.8, 1.2), due - time.monotonic())))
            check = min(2 * check, CHECK_SECONDS)

    async def _until_serving(self) -> None:
        """Who is listed takes requests; a test's app, which listens nowhere, is never listed."""
        expected = time.monotonic() + SELF_SECONDS
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
            while not await self._is_serving(client):
                if time.monotonic() > expected:
                    self._complain(f"not registered: this process cannot be reached at {self._address}")
                await asyncio.sleep(0.05)

    async def _is_serving(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(f"http://{netloc(*self._address)}/livez")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(PROCESS_ID_HEADER) == PROCESS_ID)

    async def _beat(self, status: Status) -> Status | None:
        """Register if need be, and say how we are; returns the status if the registry has it now."""
        beaten = await self._heartbeat(status)
        if beaten is not None and beaten.status_code == 404:
            # The registry does not know us (any more): it was restarted, or we were away too long.
            self._instance_id = None
            beaten = await self._heartbeat(status)
        if beaten is None or not beaten.is_success:
            return None
        self._complaint = ""
        return status

    async def _heartbeat(self, status: Status) -> httpx.Response | None:
        if self._instance_id is None and not await self._register(status):
            return None
        return await self._ask("POST", f"/heartbeat/{self._instance_id}", {"status": status})

    async def _register(self, status: Status) -> bool:
        host, port = self._address
        instance: dict[str, object] = {"service_name": self._service_name, "host": host, "port": port}
        if status is not Status.UP:
            # Not even for the moment until the first heartbeat may it pass for well.
            instance["status"] = status
        registered = await self._ask("POST", "/register", instance | {"version": __version__})
        if registered is None or not registered.is_success:
            return False
        try:
            self._instance_id = Lease.model_validate_json(registered.content).instance_id
        except ValidationError:
            self._complain(f"what answers at {self._registry.base_url} is not a registry")
            return False
        logger.info("registered as an instance of %s", self._service_name)
        return True

    async def _ask(
        self, method: str, path: str, body: object = None, patience: httpx.Timeout = TIMEOUT
    ) -> httpx.Response | None:
        try:
            answer = await self._registry.request(method, path, json=body, timeout=patience)
        except httpx.HTTPError as exc:
            self._complain(f"the registry cannot be reached: {exc!r}")
            return None
        if answer.is_error and answer.status_code != 404:
            self._complain(f"the registry refused {method} {path}: {answer.status_code}")
        return answer

    def _complain(self, complaint: str) -> None:
        """Once, not every second for as long as it lasts; who is leaving has no reason to."""
        if complaint != self._complaint:
            logger.log(logging.DEBUG if self._is_leaving else logging.WARNING, complaint)
        self._complaint = complaint
