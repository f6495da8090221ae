"""Asking another service: found in the directory, signed as this one, tried again where that is safe."""

import time
from collections.abc import Mapping
from contextlib import closing

import httpx

from common import telemetry
from common.auth import Tokens
from common.balancer import Balancer
from common.errors import Unavailable
from common.registry import Directory, Instance

ATTEMPTS = 3
# All attempts together: who waits for the answer learns within two seconds that there is none.
DEADLINE_SECONDS = 1.9
TIMEOUT = {"connect": 1.0, "read": 1.5, "write": 1.5, "pool": 1.0}
POOL = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=30)

# An idle connection that its other end closed just now looks like this; another one may do.
BROKE_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)

# What an instance says when it is another one, behind it, that failed.
BROKEN = {502, 504}


class ServiceClient:
    """GETs from one other service. Threads may share it."""

    def __init__(
        self,
        service_name: str,
        directory: Directory,
        tokens: Tokens,
        asking_service: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._service_name = service_name
        self._balancer = Balancer(directory)
        self._tokens = tokens
        self._asking_service = asking_service
        # The transport itself: a client around it would keep cookies and add headers of its own.
        self._transport = transport or httpx.HTTPTransport(limits=POOL, trust_env=False)

    def close(self) -> None:
        self._transport.close()

    def get(
        self, path: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The answer of an instance: a success, 304, or a 4xx. Unavailable when no instance gives one."""
        tried: list[Instance] = []
        broke_off: list[Instance] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(tried) < ATTEMPTS and (left := deadline - time.monotonic()) > 0:
            untried = self._balancer.choose(self._service_name, tried)
            instance = untried or (broke_off.pop() if broke_off else None)
            if instance is None:
                break
            tried.append(instance)
            try:
                answer = self._get_from(instance, self._request(instance, path, params, headers, left))
            except BROKE_OFF:
                broke_off.append(instance)
            except httpx.RequestError:
                continue
            else:
                # The others say nothing about the thing asked for, only about the moment.
                if not answer.is_server_error and answer.status_code != 429:
                    return answer
        raise Unavailable(
            f"{self._service_name}_unavailable", f"The {self._service_name} service cannot be asked now."
        )

    def _request(
        self,
        instance: Instance,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        seconds: float,
    ) -> httpx.Request:
        return httpx.Request(
            "GET",
            f"http://{instance.netloc}{path}",
            params=params,
            headers=telemetry.outgoing() | self._credentials() | dict(headers or {}),
            extensions={"timeout": {step: min(limit, seconds) for step, limit in TIMEOUT.items()}},
        )

    def _get_from(self, instance: Instance, request: httpx.Request) -> httpx.Response:
        try:
            with (
                self._balancer.busy(instance),
                closing(self._transport.handle_request(request)) as answer,
            ):
                answer.request = request
                answer.read()
        except httpx.RequestError as exc:
            connected = not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
            self._balancer.failed(instance, connected)
            raise
        if answer.status_code in BROKEN:
            self._balancer.failed(instance, connected=True)
        else:
            self._balancer.succeeded(instance)
        return answer

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens.issue_for_service(self._asking_service)}"}
