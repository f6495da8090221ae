"""Asking another service: found in the directory, signed as this one, tried again where that is safe."""

from collections.abc import Mapping

import httpx

from common import telemetry
from common.auth import Tokens
from common.balancer import Balancer
from common.errors import Unavailable
from common.registry import Directory, Instance

ATTEMPTS = 3
TIMEOUT = {"connect": 1.0, "read": 2.0, "write": 2.0, "pool": 1.0}
POOL = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=30)

# What says nothing about the thing asked for, only about the moment.
NOT_AN_ANSWER = {429, 500, 502, 503, 504}


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
        while len(tried) < ATTEMPTS and (instance := self._balancer.choose(self._service_name, tried)):
            tried.append(instance)
            answer = self._get_from(instance, path, params, headers)
            if answer is not None:
                return answer
        raise Unavailable(
            f"{self._service_name}_unavailable", f"The {self._service_name} service cannot be asked now."
        )

    def _get_from(
        self,
        instance: Instance,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response | None:
        request = httpx.Request(
            "GET",
            f"http://{instance.netloc}{path}",
            params=params,
            headers=telemetry.outgoing() | self._credentials() | dict(headers or {}),
            extensions={"timeout": TIMEOUT},
        )
        try:
            with self._balancer.busy(instance):
                answer = self._transport.handle_request(request)
                answer.read()
        except httpx.TransportError as exc:
            connected = not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
            self._balancer.failed(instance, connected)
            return None
        self._balancer.succeeded(instance)
        return None if answer.status_code in NOT_AN_ANSWER else answer

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens.issue_for_service(self._asking_service)}"}
