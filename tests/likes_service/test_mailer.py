"""Mails over SMTP, to a real server."""

import socket
import ssl
import subprocess
from email.utils import parsedate_to_datetime

import pytest
import server_processes
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from likes_service.mailer import MailOutcomeUnknown, MailRefused, MailServer, MailServerUnavailable
from tests.polling import PATIENCE_SECONDS

TEXT = 'line\n.\n..dots\nPreis: 5 €, "quoted" <b>\u2028 \U0001f600 = =20 ' + "x" * 280 + "\n"


def send(mail_server, key="key", to="alice@example.com", subject="bob likes your post", text=TEXT):
    with mail_server.session() as session:
        session.send(mail_server.compose(key, to, subject, text))


def test_a_mail_arrives_as_it_was_written(mail_server, inbox):
    send(mail_server)

    assert inbox.mails[0].get_content().replace("\r\n", "\n") == TEXT
    assert inbox.mails[0].get_content_type() == "text/plain"


def test_a_mail_has_its_headers(mail_server, inbox):
    send(mail_server)
    mail = inbox.mails[0]

    assert mail["From"] == "Microblog <noreply@microblog.example>"
    assert mail["To"] == "alice@example.com"
    assert mail["Subject"] == "bob likes your post"
    assert mail["Message-ID"] == "<key@microblog.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert parsedate_to_datetime(mail["Date"])


def test_the_envelope_has_bare_addresses(mail_server, inbox):
    send(mail_server)

    assert inbox.envelopes[0].mail_from == "noreply@microblog.example"
    assert inbox.envelopes[0].rcpt_tos == ["alice@example.com"]


def test_a_mail_is_ascii_whatever_it_says(mail_server, inbox):
    send(mail_server)

    assert inbox.envelopes[0].content.isascii()


@pytest.mark.parametrize(
    "address", ["a" * 64 + "@" + ".".join(["b" * 60] * 3) + ".example", "o'x+y=/?^_`{|}~-!#$%&*@example.com"]
)
def test_an_unusual_address_stays_in_one_piece(mail_server, inbox, address):
    send(mail_server, to=address)

    assert inbox.mails[0]["To"] == address
    assert inbox.envelopes[0].rcpt_tos == [address]


@pytest.mark.parametrize("place", ["to", "subject"])
def test_nothing_can_add_a_header(mail_server, inbox, place):
    with pytest.raises(ValueError, match="linefeed or carriage return"):
        send(mail_server, **{place: "alice@example.com\r\nBcc: eve@example.com"})

    assert inbox.mails == []


def test_a_server_that_is_not_there_is_away():
    with pytest.raises(MailServerUnavailable):
        send(MailServer("127.0.0.1", server_processes.free_port(), "microblog@localhost"))


def test_a_server_that_hangs_is_away(monkeypatch):
    monkeypatch.setattr("likes_service.mailer.SMTP_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hung, pytest.raises(MailServerUnavailable):
        send(MailServer("127.0.0.1", hung.getsockname()[1], "microblog@localhost"))


def test_a_server_without_the_tls_asked_for_is_away(smtp_port):
    with pytest.raises(MailServerUnavailable):
        send(MailServer("127.0.0.1", smtp_port, "microblog@localhost", starttls=True))


def test_a_server_without_the_login_asked_for_is_away(smtp_port):
    with pytest.raises(MailServerUnavailable):
        send(MailServer("127.0.0.1", smtp_port, "microblog@localhost", user="me", password="secret"))


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    path = tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {path} -out {tmp_path / 'public.pem'}"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "public.pem").read_bytes())
    return path


@pytest.fixture
def strict_server(inbox, certificate):
    """A mail server that wants TLS and a login."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    def authenticate(server, session, envelope, mechanism, login):
        return AuthResult(success=(login.login, login.password) == (b"me", b"secret"))

    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=server_processes.free_port(),
        ready_timeout=PATIENCE_SECONDS,
        tls_context=tls,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )
    controller.start()
    yield MailServer("127.0.0.1", controller.port, "microblog@localhost", "me", "secret", starttls=True)
    controller.stop()


def test_a_mail_arrives_over_tls_and_after_a_login(strict_server, inbox, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    send(strict_server)

    assert len(inbox.mails) == 1


def test_a_server_whose_certificate_nobody_knows_is_away(strict_server):
    with pytest.raises(MailServerUnavailable):
        send(strict_server)


def test_a_sender_that_is_not_welcome_means_later(mail_server, inbox):
    inbox.to_sender = "550 not you"

    with pytest.raises(MailServerUnavailable):
        send(mail_server)


@pytest.mark.parametrize("place", ["to_recipient", "to_mail"])
def test_a_temporary_no_means_later(mail_server, inbox, place):
    setattr(inbox, place, "451 later, alice@example.com")

    with pytest.raises(MailServerUnavailable, match=r"answered 451$"):
        send(mail_server)


@pytest.mark.parametrize("place", ["to_recipient", "to_mail"])
def test_a_permanent_no_is_final(mail_server, inbox, place):
    setattr(inbox, place, "550 no such alice@example.com")

    with pytest.raises(MailRefused, match=r"answered 550$"):
        send(mail_server)


def test_a_server_that_refuses_to_begin_with_the_mail_has_not_taken_it(mail_server, inbox):
    async def forget_the_recipient(server, session, envelope, address, options):
        return "250 OK"

    inbox.handle_RCPT = forget_the_recipient

    with pytest.raises(MailRefused, match=r"answered 503$"):
        send(mail_server)


def test_a_conversation_that_breaks_off_before_the_mail_means_later(mail_server, inbox):
    mail = mail_server.compose("key", "alice@example.com", "-", "-")
    with mail_server.session() as session:
        session._smtp.sock.shutdown(socket.SHUT_RDWR)

        with pytest.raises(MailServerUnavailable):
            session.send(mail)


def test_a_mail_without_an_answer_is_in_doubt(mail_server, inbox):
    async def take_and_hang(server, session, envelope):
        inbox.envelopes.append(envelope)
        server.transport.abort()
        return "250 OK"

    inbox.handle_DATA = take_and_hang

    with pytest.raises(MailOutcomeUnknown):
        send(mail_server)


def test_a_server_that_hangs_after_it_took_the_mail_has_taken_it(mail_server, inbox):
    with mail_server.session() as session:
        session.send(mail_server.compose("key", "alice@example.com", "-", "-"))
        session._smtp.sock.shutdown(socket.SHUT_RDWR)

    assert len(inbox.mails) == 1
