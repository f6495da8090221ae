"""What is measured of posts."""

from tests.scrape import growth


def test_a_post_counts_once_however_often_it_is_sent(client, as_user) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "measured"}

    with growth("microblog_posts_total", way="stored") as stored:
        for _ in range(2):
            client.post("/posts", json={"text": "Hello!"}, headers=headers).raise_for_status()

        assert stored() == 1


def test_a_post_for_later_is_counted_as_queued(client, as_user) -> None:
    with growth("microblog_posts_total", way="queued") as queued:
        client.post("/posts/async", json={"text": "Hello!"}, headers=as_user("alice")).raise_for_status()

        assert queued() == 1
