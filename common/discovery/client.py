"""GETs from another service: found in the directory, signed as this one, retried where that is safe."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import httpx

from common.bulkhead import BulkheadFull, ThreadBulkhead
from common.discovery.balancer import MAX_ATTEMPTS, UPSTREAM_FAILURES, Attempt, Balancer
from common.discovery.call import Call
from common.discovery.directory import Directory
from common.discovery.identity import UnknownRoute, WrongInstance, is_foreign, is_unknown_route
from common.errors import Unavailable
from common.telemetry import context, metrics
from common.tokens import Tokens

# All attempts together: the caller learns within two seconds that there is no response.
DEADLINE_SECONDS = 1.9
TIMEOUT = {"connect": 1.0, "read": 1.5, "write": 1.5, "pool": 1.0}
POOL = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=30)

# Half of a service's threads: the others serve what needs no other service. While that one is healthy,
# a response takes milliseconds, and so does the wait for a slot.
MAX_CONCURRENT_CALLS = 4
MAX_WAIT_SECONDS = 0.5

# An idle connection that its other end closed just now looks like this; another one may do.
CONNECTION_LOST = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


def service_unavailable(name: str) -> Unavailable:
    return Unavailable(f"{name}_unavailable", f"The {name} service cannot be reached now.")


class ServiceClient:
    """GETs from one other service. Threads may share it."""

    def __init__(
        self,
        service_name: str,
        directory: Directory,
        tokens: Tokens,
        caller: str,
        transport: httpx.BaseTransport | None = None,
        max_calls: int = MAX_CONCURRENT_CALLS,
    ) -> None:
        self._service_name = service_name
        self._balancer = Balancer(directory)
        self._tokens = tokens
        self._caller = caller
        self._bulkhead = ThreadBulkhead(max_calls, MAX_WAIT_SECONDS)
        # The transport itself: a client around it would keep cookies and add headers of its own.
        # Instances speak plain HTTP: a TLS context would read all certificates for nothing.
        self._transport = transport or httpx.HTTPTransport(limits=POOL, trust_env=False, verify=False)

    def close(self) -> None:
        self._transport.close()

    def get(
        self,
        path: str,
        params: Mapping[str, str | Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        is_new: bool = False,
        within_seconds: float | None = None,
    ) -> httpx.Response:
        """The response of an instance: a success, 304, or a 4xx. Unavailable when no instance gives one.

        Where the path `is_new`, an instance of the last version has no such route, and its 404 is a response.
        """
        target = httpx.URL(path, params=params) if params else httpx.URL(path)
        signed = self._credentials() | dict(headers or {})
        deadline = time.monotonic() + (within_seconds or DEADLINE_SECONDS)
        try:
            with self._bulkhead:
                response = self._try_instances(target, signed, deadline, is_new)
        except BulkheadFull:
            metrics.bulkhead_refusals.add(self._service_name)
            response = None
        if response is None:
            raise service_unavailable(self._service_name)
        return response

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens.issue_for_service(self._caller)}"}

    def _try_instances(
        self, target: httpx.URL, headers: Mapping[str, str], deadline: float, is_new: bool
    ) -> httpx.Response | None:
        untried = self._balancer.attempts(self._service_name)
        lost: list[Attempt] = []
        for _ in range(MAX_ATTEMPTS):
            attempt = next(untried, None) or self._again(lost)
            if attempt is None or time.monotonic() > deadline:
                return None
            try:
                response = self._get_from(attempt, target, headers, deadline, is_new)
            except CONNECTION_LOST:
                lost.append(attempt)
            except httpx.RequestError:
                continue
            else:
                # A 5xx or 429 is about the moment, not about the resource.
                if not response.is_server_error and response.status_code != 429:
                    return response
        return None

    def _again(self, lost: list[Attempt]) -> Attempt | None:
        """One more call of an instance to which a connection was lost, if there is one."""
        if not lost:
            return None
        metrics.retries.add(self._service_name)
        return lost.pop()

    def _get_from(
        self, attempt: Attempt, target: httpx.URL, headers: Mapping[str, str], deadline: float, is_new: bool
    ) -> httpx.Response:
        left = deadline - time.monotonic()
        url = httpx.URL(f"http://{attempt.instance.netloc}").join(target)
        timeout = {step: min(limit, left) for step, limit in TIMEOUT.items()}
        call = Call(attempt.instance, "GET", target.path)
        with attempt, call, self._sent(url, headers, timeout) as response:
            response.stream = _DeadlineStream(response.stream, deadline)
            response.read()
            call.status = status = response.status_code
            if is_foreign(status, response.headers.get("content-type")):
                raise WrongInstance(f"{status} is not from {attempt.instance.service_name}")
            if not is_new and is_unknown_route(status, response.content):
                raise UnknownRoute(f"{attempt.instance.service_name}: this instance lacks the route")
            if status in UPSTREAM_FAILURES:
                attempt.fail()
        return response

    def _sent(
        self, url: httpx.URL, headers: Mapping[str, str], timeout: Mapping[str, float]
    ) -> closing[httpx.Response]:
        sent = {**context.outgoing_headers(), **headers}
        request = httpx.Request("GET", url, headers=sent, extensions={"timeout": timeout})
        response = self._transport.handle_request(request)
        response.request = request
        return closing(response)


class _DeadlineStream(httpx.SyncByteStream):
    """A body that has to be there in time: each read of it is bounded, but there may be any number."""

    def __init__(self, stream: object, deadline: float) -> None:
        assert isinstance(stream, httpx.SyncByteStream)
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the response takes too long")
            yield chunk

    def close(self) -> None:
        self._stream.close()
