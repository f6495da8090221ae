"""Where Redis is."""

import pytest
from pydantic import TypeAdapter, ValidationError

from common.redis_url import ClusterUrl, RedisUrl, SentinelUrl

urls: TypeAdapter[str] = TypeAdapter(RedisUrl)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://127.0.0.1:6379/0",
        "rediss://user:secret@redis.example?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://one,two:26380/main",
        "rediss+sentinel://:secret@one/main/3?sentinel_password=other",
        "redis+cluster://one,two:6380",
        "rediss+cluster://user:secret@one:6380/0",
    ],
)
def test_a_url_is_taken_as_it_is(url: str) -> None:
    assert urls.validate_python(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://secret",
        "redis://",
        "redis://secret:0",
        "redis://secret:99999",
        "redis://secret secret",
        "redis://secret,secret",
        "redis://secret?no_such_option=1",
        "redis://secret?socket_timeout=long",
        "unix://",
        "redis+sentinel:///main",
        "redis+sentinel://secret",
        "redis+sentinel://secret,/main",
        "redis+sentinel://secret:0/main",
        "redis+sentinel://secret:port/main",
        "redis+sentinel://secret/main/zero",
        "redis+sentinel://secret/main/0/more",
        "redis+sentinel://secret/main?password=secret",
        "redis+sentinel://secret/main?sentinel_password",
        "redis+sentinel://secret/main#more",
        "redis+sentinels://secret/main",
        "redis+cluster://",
        "redis+cluster://secret,",
        "redis+cluster://secret:0",
        "redis+cluster://secret/1",
        "redis+cluster://secret?ssl_cert_reqs=none",
        "redis+clusters://secret",
    ],
)
def test_anything_else_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        urls.validate_python(url)

    assert "secret" not in refused.value.errors()[0]["msg"]


def test_a_sentinel_url_says_all_there_is_to_say() -> None:
    place = SentinelUrl.parse("rediss+sentinel://ann:p%40ss@one,[::1]:7/main/3?sentinel_password=other")

    assert place == SentinelUrl(
        sentinels=(("one", 26379), ("::1", 7)),
        master="main",
        to_redis={"ssl": True, "db": 3, "username": "ann", "password": "p@ss"},
        to_sentinels={"ssl": True, "password": "other"},
    )


def test_a_cluster_url_says_all_there_is_to_say() -> None:
    place = ClusterUrl.parse("rediss+cluster://ann:p%40ss@one,[::1]:7")

    assert place == ClusterUrl(
        nodes=(("one", 6379), ("::1", 7)), options={"ssl": True, "username": "ann", "password": "p@ss"}
    )
