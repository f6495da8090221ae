"""Operators: clients on this machine, or with the operators' token. They may read what is measured."""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Iterable
from urllib.parse import urlsplit

from common.errors import Forbidden, NotFound
from common.settings import is_loopback
from common.telemetry.instruments import Switch

# What a proxy adds: a client behind one is not on this machine, wherever the proxy is.
FORWARDING_HEADERS = {
    b"forwarded",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
}


def operators_only() -> Forbidden:
    return Forbidden("operators_only", "This is for operators: with their token, or on this machine.")


def require_metrics(peer: str | None, headers: Iterable[tuple[bytes, bytes]], token: str) -> None:
    """Raises Forbidden for others than operators, and NotFound while METRICS is off."""
    if not is_operator(peer, headers, token):
        raise operators_only()
    if not Switch.is_on:
        raise NotFound("metrics_off", "METRICS is off.")


def is_operator(peer: str | None, headers: Iterable[tuple[bytes, bytes]], token: str) -> bool:
    """Whether a request comes from an operator; names of headers are in lower case.

    Without a `token`, only this machine may.
    """
    given = list(headers)
    return _has_token(given, token) or (peer is not None and _is_on_this_machine(peer, given))


def _has_token(headers: list[tuple[bytes, bytes]], token: str) -> bool:
    expected = token.encode()
    return bool(token) and any(
        name == b"authorization" and hmac.compare_digest(_given_token(value), expected)
        for name, value in headers
    )


def _given_token(authorization: bytes) -> bytes:
    """The token of `Bearer`, or the password of `Basic`, for which a browser asks; empty without either."""
    scheme, _, credentials = authorization.partition(b" ")
    match scheme:
        case b"Bearer":
            return credentials
        case b"Basic":
            try:
                return b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
    return b""


def _is_on_this_machine(peer: str, headers: list[tuple[bytes, bytes]]) -> bool:
    """A web page from anywhere runs on its reader's machine: with DNS rebinding, only the host tells."""
    is_forwarded = not FORWARDING_HEADERS.isdisjoint(name for name, _ in headers)
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    return is_loopback(peer) and not is_forwarded and all(map(_is_loopback_host, hosts))


def _is_loopback_host(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
