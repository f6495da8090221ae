"""Settings of a service that faces the internet."""

import re
from ipaddress import ip_network
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from common.gateway.rate_limits import Policy, quota
from common.redis_url import RedisUrl
from common.settings import ServiceSettings

OFF = "off"
QUOTA = re.compile(r"[1-9]\d*/(s|min|hour|day)( burst [1-9]\d*)?")
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")


# Segments of unreserved characters (RFC 3986, §2.3), none of them `.` or `..`.
ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")


def _root_path(value: str) -> str:
    path = value.removesuffix("/")
    if not ROOT_PATH.fullmatch(path):
        raise ValueError("say a path such as `/microblog`")
    return path


def _quota(value: str) -> str:
    if value != OFF and not QUOTA.fullmatch(value):
        raise ValueError("say `off`, or a rate and a burst such as `100/s burst 500`")
    return value


def _networks(value: str) -> str:
    try:
        for network in split_list(value):
            ip_network(network)
    except ValueError as exc:
        raise ValueError("say addresses and networks, such as `10.0.0.0/8, 192.0.2.1`") from exc
    return value


def _origins(value: str) -> str:
    for origin in split_list(value):
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError("an origin is a scheme and a host, such as `https://example.com`, or `*`")
    return value


class EdgeSettings(ServiceSettings):
    """Settings of a service that faces the internet. Lists are separated by commas."""

    TRUSTS_SAMPLING: ClassVar = False

    rate_limit: Annotated[str, AfterValidator(_quota)] = "200/s burst 1000"
    rate_limit_storage: RedisUrl = ""
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    cors_origins: Annotated[str, AfterValidator(_origins)] = ""
    root_path: Annotated[str, AfterValidator(_root_path)] = ""
    reuse_port: bool = False

    @property
    def shares_port(self) -> bool:
        return self.reuse_port

    @property
    def default_policy(self) -> Policy | None:
        """The limit of a client's requests; None for no limits at all."""
        return None if self.rate_limit == OFF else Policy("ordinary", quota(self.rate_limit))


def split_list(value: str) -> list[str]:
    return [one.strip() for one in value.split(",") if one.strip()]
