"""Asking another service: found in the directory, signed as this one, tried again where that is safe."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from threading import BoundedSemaphore

import httpx

from common.circuit_breaker import Breaker, Hung
from common.discovery.balancer import Balancer
from common.discovery.directory import Directory
from common.discovery.models import Instance
from common.errors import Unavailable
from common.telemetry import context
from common.tokens import Tokens

ATTEMPTS = 3
# All attempts together: who waits for the answer learns within two seconds that there is none.
DEADLINE_SECONDS = 1.9
TIMEOUT = {"connect": 1.0, "read": 1.5, "write": 1.5, "pool": 1.0}
POOL = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=30)

# Half of a service's threads: the others answer what needs no other service. While that one is well, an
# answer takes milliseconds, and so does the wait for a seat.
SEATS = 4
SEAT_SECONDS = 0.5

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
        self._seats = BoundedSemaphore(SEATS)
        self._breaker = Breaker(f"The {service_name} service")
        # The transport itself: a client around it would keep cookies and add headers of its own.
        self._transport = transport or httpx.HTTPTransport(limits=POOL, trust_env=False)

    def close(self) -> None:
        self._transport.close()

    def get(
        self, path: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The answer of an instance: a success, 304, or a 4xx. Unavailable when no instance gives one."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self._seat():
            answer = self._ask(path, params or {}, headers or {}, deadline)
        if answer is None:
            raise self._unavailable()
        return answer

    @contextmanager
    def _seat(self) -> Iterator[None]:
        """A place among those who wait for this service."""
        try:
            self._breaker.check()
        except Hung as exc:
            raise self._unavailable() from exc
        if not self._seats.acquire(timeout=SEAT_SECONDS):
            self._breaker.trip()
            raise self._unavailable()
        try:
            yield
        finally:
            self._seats.release()

    def _unavailable(self) -> Unavailable:
        return Unavailable(
            f"{self._service_name}_unavailable", f"The {self._service_name} service cannot be asked now."
        )

    def _ask(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str], deadline: float
    ) -> httpx.Response | None:
        tried: list[Instance] = []
        broke_off: list[Instance] = []
        while len(tried) < ATTEMPTS and time.monotonic() < deadline:
            untried = self._balancer.choose(self._service_name, tried)
            instance = untried or (broke_off.pop() if broke_off else None)
            if instance is None:
                return None
            tried.append(instance)
            try:
                answer = self._get_from(
                    instance, self._request(instance, path, params, headers, deadline), deadline
                )
            except BROKE_OFF:
                broke_off.append(instance)
            except httpx.RequestError:
                continue
            else:
                # The others say nothing about the thing asked for, only about the moment.
                if not answer.is_server_error and answer.status_code != 429:
                    return answer
        return None

    def _request(
        self,
        instance: Instance,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        deadline: float,
    ) -> httpx.Request:
        left = deadline - time.monotonic()
        return httpx.Request(
            "GET",
            f"http://{instance.netloc}{path}",
            params=params or None,
            headers=context.outgoing() | self._credentials() | dict(headers),
            extensions={"timeout": {step: min(limit, left) for step, limit in TIMEOUT.items()}},
        )

    def _get_from(self, instance: Instance, request: httpx.Request, deadline: float) -> httpx.Response:
        try:
            with (
                self._balancer.busy(instance),
                closing(self._transport.handle_request(request)) as answer,
            ):
                answer.request = request
                answer.stream = _Until(answer.stream, deadline)
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


class _Until(httpx.SyncByteStream):
    """A body that has to be there in time: each read of it is bounded, but there may be any number."""

    def __init__(self, stream: object, deadline: float) -> None:
        assert isinstance(stream, httpx.SyncByteStream)
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the answer takes too long")
            yield chunk

    def close(self) -> None:
        self._stream.close()
