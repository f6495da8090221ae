"""Moves the likes of REDIS_URL, a single Redis, to a cluster while they are served (docs/operations.md)."""

import argparse
import sys
from contextlib import closing
from itertools import accumulate
from typing import Any

import redis
from pydantic import TypeAdapter, ValidationError
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from common.redis_url import ClusterUrl, RedisUrl, connect, is_of_cluster
from likes_service.cluster import ClusterClient
from likes_service.connection import RedisClient
from likes_service.key_copy import CopyRefused, KeyCopy
from likes_service.settings import LikesSettings
from likes_service.store import LikesStore

# A post with millions of likes is copied at once.
SECONDS = 60.0
URL: TypeAdapter[str] = TypeAdapter(RedisUrl)


def move(source_url: str, target_url: str, is_last: bool) -> None:
    """Raises the outages of either Redis, and CopyRefused."""
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": SECONDS,
        "socket_connect_timeout": SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    place = ClusterUrl.parse(target_url)
    source = connect(RedisClient, Sentinel, source_url, **options)
    target = ClusterClient(place.nodes, **place.options, **options)
    with closing(source), closing(target):
        copy = KeyCopy(source, target)
        for count in accumulate(copy.run()):
            print(f"\r{count} keys copied", end="", flush=True)
        if is_last:
            copy.finish()
            print("\nThe cluster has all likes, and serves.")
        else:
            print("\nThe cluster is in step. Start what is to use it, then move again with --finish.")


def _is_cluster(url: str) -> bool:
    try:
        return is_of_cluster(URL.validate_python(url))
    except ValidationError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m likes_service.move", description=__doc__)
    parser.add_argument("cluster", help="redis+cluster://host:port,host:port")
    parser.add_argument("--finish", action="store_true", help="hand over: takes no changes any more here")
    given = parser.parse_args()
    source = LikesSettings.read().redis_url
    if is_of_cluster(source) or not _is_cluster(given.cluster):
        parser.error(
            "REDIS_URL has to be a single Redis, and the argument redis+cluster://host:port,host:port"
        )
    try:
        move(source, given.cluster, given.finish)
    except (CopyRefused, redis.RedisError, *LikesStore.outages) as exc:
        sys.exit(f"\n{exc}: run it again when that is mended")


if __name__ == "__main__":
    main()
