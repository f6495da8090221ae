"""What is measured of votes and of DynamoDB."""

from tests.scrape import growth


def test_a_vote_counts_once(client, as_user) -> None:
    poll = {"question": "Tea or coffee?", "options": ["Tea", "Coffee"]}
    poll_id = client.post("/polls", json=poll, headers=as_user("alice")).json()["id"]

    with (
        growth("microblog_votes_total") as votes,
        growth(
            "db_client_operation_duration_seconds_count",
            db_system_name="aws.dynamodb",
            db_operation_name="transact_write_items",
            error_type="",
        ) as operations,
    ):
        for _ in range(2):
            client.post(f"/polls/{poll_id}/vote", json={"option": 0}, headers=as_user("bob"))

        assert votes() == 1
        assert operations() >= 1
