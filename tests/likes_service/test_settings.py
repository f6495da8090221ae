"""What the likes service reads of the mail server."""

import pytest
from pydantic import ValidationError

from likes_service.workers import mail_server
from tests.likes_service.conftest import settings


@pytest.mark.parametrize(
    ("given", "is_implicit"),
    [
        ({}, False),
        ({"smtp_port": 465}, True),
        ({"smtp_port": 587}, False),
        ({"smtp_port": 587, "smtp_ssl": True}, True),
        ({"smtp_port": 465, "smtp_ssl": False}, False),
        ({"smtp_port": 465, "smtp_ssl": ""}, True),
    ],
)
def test_tls_begins_with_the_connection_on_port_465_or_when_it_is_asked_for(given, is_implicit):
    assert mail_server(settings(**given)).implicit_tls == is_implicit


@pytest.mark.parametrize("name", ["smtp_user", "smtp_password"])
def test_a_login_that_smtp_cannot_carry_is_no_login(name):
    with pytest.raises(ValidationError):
        settings(**{name: "p\u00e4ss"})
