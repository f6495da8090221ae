"""What is measured of accounts, sign-ins and hashes."""

from fastapi.testclient import TestClient

from tests.scrape import growth
from tests.users_service.conftest import PASSWORD


def test_accounts_and_sign_ins_are_counted_by_outcome(client: TestClient) -> None:
    alice = {"username": "alice", "password": PASSWORD}

    with (
        growth("microblog_registrations_total") as accounts,
        growth("microblog_sign_ins_total", outcome="right") as right,
        growth("microblog_sign_ins_total", outcome="wrong") as wrong,
        growth("microblog_password_hashing_seconds_count", error_type="") as hashes,
    ):
        client.post("/register", json=alice)
        client.post("/register", json=alice)
        client.post("/login", json=alice)
        client.post("/login", json=alice | {"password": "another horse"})
        client.post("/login", json=alice | {"username": "nobody"})

        assert (accounts(), right(), wrong()) == (1, 1, 2)
        assert hashes() == 5
