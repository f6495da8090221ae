"""The model of docs/scaling.md: its arithmetic, and that the page shows what it prints."""

import pytest

from bench import capacity
from tests.deploy.processes import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text()


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    capacity.print_tables([1e4, 1e6, 1e8])

    missing = [line for line in capsys.readouterr().out.splitlines() if line not in PAGE]
    assert not missing, f"run python -m bench.capacity, and put these lines into docs/scaling.md: {missing}"


def test_what_gives_way_is_just_enough_for_its_number_of_users() -> None:
    numbers = {name: users for name, users, _ in capacity.limits()}
    demand = capacity.Demand(numbers["cores of one PostgreSQL"])

    assert demand.cores("postgres") == pytest.approx(capacity.POSTGRES_CORES * capacity.UTILISATION)
    assert capacity.Demand(numbers["disk of one PostgreSQL"]).postgres_bytes == pytest.approx(
        capacity.POSTGRES_BYTES
    )


def test_there_are_two_of_each_service_for_one_user() -> None:
    demand = capacity.Demand(1)

    assert {demand.instances(service) for service in capacity.SERVICES} == {2}


def test_cores_grow_with_the_users() -> None:
    assert capacity.Demand(2e6).cores("timelines") == pytest.approx(
        2 * capacity.Demand(1e6).cores("timelines")
    )


def test_signing_in_costs_the_users_service_its_hashes() -> None:
    demand = capacity.Demand(1e6)
    hashing = demand.peak * capacity.SIGN_INS / capacity.REQUESTS * capacity.SIGN_IN_CPU / 1e6

    assert demand.cores("users") > hashing > 0
