"""The revocations of the service that keeps them, watched and kept in memory."""

import logging
import random
from http import HTTPStatus
from threading import Event, Thread
from typing import Self

import httpx
from pydantic import ValidationError

from common.discovery.balancer import Balancer
from common.discovery.directory import Directory
from common.discovery.models import Instance
from common.revocations import RevocationChanges, Revocations
from common.tokens import Tokens

logger = logging.getLogger(__name__)

# An instance that hangs holds the list up for no longer than this, and a second.
WATCH_SECONDS = 5
TIMEOUT = httpx.Timeout(1.0, read=WATCH_SECONDS + 1)
RETRY_SECONDS = (0.2, 1.0)


class RevocationWatcher:
    """Keeps a list of revocations current in the background.

    No request ever waits for it. While the service that keeps the list is
    unavailable, the last one stays in use.
    """

    def __init__(self, service_name: str, directory: Directory, tokens: Tokens, caller: str) -> None:
        self.revocations = Revocations()
        self._service_name = service_name
        self._balancer = Balancer(directory)
        self._tokens = tokens
        self._caller = caller
        self._stop = Event()
        self._is_current = True

    def __enter__(self) -> Self:
        # A daemon: it may be in the middle of a long poll when the process ends.
        Thread(target=self._watch, name="revocations", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        with httpx.Client(timeout=TIMEOUT, trust_env=False, verify=False) as client:  # noqa: S501  plain HTTP
            while not self._stop.is_set():
                if not self._update(client):
                    self._stop.wait(random.uniform(*RETRY_SECONDS))

    def _update(self, client: httpx.Client) -> bool:
        """Whether there was a response; it comes as soon as there is something new."""
        attempt = self._balancer.attempt(self._service_name)
        if attempt is None:
            return False
        try:
            with attempt as instance:
                changes = self._poll(client, instance)
        except (httpx.HTTPError, ValidationError) as exc:
            if self._is_current:
                # That the service is unavailable is told elsewhere; whenever it restarts, it is for a moment.
                level = logging.INFO if _is_outage(exc) else logging.WARNING
                logger.log(level, "%s tells no revocations, the last ones stay: %r", self._service_name, exc)
            self._is_current = False
        else:
            self.revocations.update(changes)
            self._is_current = True
        return self._is_current

    def _poll(self, client: httpx.Client, instance: Instance) -> RevocationChanges:
        response = client.get(
            f"http://{instance.netloc}/revocations",
            params={"after": self.revocations.position, "wait": WATCH_SECONDS},
            headers={"Authorization": f"Bearer {self._tokens.issue_for_service(self._caller)}"},
        )
        return RevocationChanges.model_validate_json(response.raise_for_status().content)


def _is_outage(exc: Exception) -> bool:
    if isinstance(exc, httpx.HTTPStatusError):
        return exc.response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    return isinstance(exc, httpx.TransportError)
