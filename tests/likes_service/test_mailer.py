"""Mails over SMTP, to a real server."""

import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest
import server_processes
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from likes_service.interrupt import Interrupt
from likes_service.mailer import (
    MailDeferred,
    MailOutcomeUnknown,
    MailRefused,
    MailServer,
    MailServerUnavailable,
)
from tests.likes_service.scripted_smtp import BREAK_OFF, END, GREETING, scripted_server
from tests.polling import PATIENCE_SECONDS, eventually

TEXT = 'line\n.\n..dots\nPreis: 5 €, "quoted" <b>\u2028 \U0001f600 = =20 ' + "x" * 280 + "\n"


def send(
    mail_server,
    key="key",
    to="alice@example.com",
    subject="bob likes your post",
    text=TEXT,
    interrupt=None,
):
    mail = mail_server.compose(key, to, subject, text)
    with mail_server.session(interrupt or Interrupt()) as session:
        session.open_envelope(mail)
        session.send(mail)


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
    "address", ["a" * 64 + "@" + ".".join(["b" * 59] * 3) + ".example", "o'x+y=/?^_`{|}~-!#$%&*@example.com"]
)
def test_an_unusual_address_stays_in_one_piece(mail_server, inbox, address):
    send(mail_server, to=address)

    assert inbox.mails[0]["To"] == address
    assert inbox.envelopes[0].rcpt_tos == [address]


def test_a_subject_cannot_add_a_header(mail_server):
    with pytest.raises(ValueError, match="linefeed or carriage return"):
        send(mail_server, subject="-\r\nBcc: eve@example.com")


@pytest.mark.parametrize(
    "address",
    [
        "=?utf-8?q?victim=40other.example=2C?=@example.com",
        "=?UTF-8?B?ZXZlQG90aGVyLmV4YW1wbGUs?=@example.com",
        "alice@example.com\r\nBcc: eve@example.com",
        "alice@example.com>\r\nRCPT TO:<eve@example.com",
        "alice@example.com, eve@example.com",
        "Alice <alice@example.com>",
        '"alice"@example.com',
        "alice(eve)@example.com",
        "älice@example.com",
        "a" * 65 + "@example.com",
        "alice",
        "",
    ],
)
def test_an_address_that_no_mail_can_have_is_refused_without_a_word_to_the_server(
    mail_server, inbox, address
):
    with pytest.raises(MailRefused, match="the address on file is not valid") as refused:
        send(mail_server, to=address)

    assert "eve" not in repr(refused.value)
    assert inbox.mails == []


def test_a_server_that_is_not_there_is_away():
    with pytest.raises(MailServerUnavailable):
        send(MailServer("127.0.0.1", server_processes.free_port(), "microblog@localhost"))


def test_a_server_that_hangs_is_away(monkeypatch):
    monkeypatch.setattr("likes_service.mailer.COMMAND_SECONDS", 0.1)
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
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def start_server(inbox):
    """Starts a mail server with these options, and says its port."""
    with ExitStack() as stack:

        def start(**options):
            controller = Controller(
                inbox,
                hostname="127.0.0.1",
                port=server_processes.free_port(),
                ready_timeout=PATIENCE_SECONDS,
                **options,
            )
            controller.start()
            stack.callback(controller.stop)
            return controller.port

        yield start


@pytest.fixture
def strict_server(start_server, tls):
    """A mail server that wants TLS and a login."""

    def authenticate(server, session, envelope, mechanism, login):
        is_right = (login.login, login.password) == (b"me", b"secret")
        return AuthResult(success=is_right, handled=False)

    port = start_server(
        tls_context=tls, require_starttls=True, authenticator=authenticate, auth_required=True
    )
    return MailServer("127.0.0.1", port, "microblog@localhost", "me", "secret", starttls=True)


@pytest.fixture
def tls_server(start_server, tls):
    """A mail server that speaks TLS from the start."""
    port = start_server(ssl_context=tls)
    return MailServer("127.0.0.1", port, "microblog@localhost", implicit_tls=True)


@pytest.fixture
def is_trusted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.mark.usefixtures("is_trusted")
def test_a_mail_arrives_over_tls_and_after_a_login(strict_server, inbox):
    send(strict_server)

    assert len(inbox.mails) == 1


@pytest.mark.usefixtures("is_trusted")
def test_a_mail_arrives_over_tls_without_a_login(start_server, tls, inbox):
    port = start_server(tls_context=tls, require_starttls=True)

    send(MailServer("127.0.0.1", port, "microblog@localhost", starttls=True))

    assert len(inbox.mails) == 1


@pytest.mark.usefixtures("is_trusted")
def test_a_mail_arrives_over_tls_from_the_start(tls_server, inbox):
    send(tls_server)

    assert len(inbox.mails) == 1


@pytest.mark.parametrize("server", ["strict_server", "tls_server"])
def test_a_server_that_is_not_trusted_is_an_outage(request, server):
    with pytest.raises(MailServerUnavailable, match="TLS: its certificate is not valid: self-signed"):
        send(request.getfixturevalue(server))


def test_a_server_that_speaks_no_tls_from_the_start_is_away(smtp_port):
    with pytest.raises(MailServerUnavailable, match="TLS"):
        send(MailServer("127.0.0.1", smtp_port, "microblog@localhost", implicit_tls=True))


@pytest.mark.usefixtures("is_trusted")
def test_a_rejected_login_is_an_outage(strict_server):
    with pytest.raises(MailServerUnavailable, match="it rejects SMTP_USER or SMTP_PASSWORD: 535"):
        send(replace(strict_server, password="other"))


@pytest.mark.parametrize(
    ("step", "reply", "options"),
    [
        ("AUTH", "454 4.7.0 temporary authentication failure", {"user": "me", "password": "secret"}),
        ("STARTTLS", "454 4.7.0 TLS not available", {"starttls": True}),
    ],
)
def test_a_temporary_no_before_mail_is_an_outage(scripted, step, reply, options):
    scripted.says |= {"EHLO": "250-hello\r\n250-AUTH PLAIN\r\n250 STARTTLS", step: reply}

    with pytest.raises(MailServerUnavailable, match=r"454 4\.7\.0"):
        send(MailServer("127.0.0.1", scripted.port, "microblog@localhost", **options))


@pytest.fixture
def scripted():
    with scripted_server() as server:
        yield server


@pytest.fixture
def scripted_mail_server(scripted):
    return MailServer("127.0.0.1", scripted.port, "microblog@localhost")


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", END])
@pytest.mark.parametrize("code", ["450", "451", "452", "454"])
def test_a_temporary_no_defers_this_mail(scripted, scripted_mail_server, step, code):
    scripted.says[step] = f"{code} 4.2.0 greylisted"

    with pytest.raises(MailDeferred, match=f"{code} 4.2.0 greylisted"):
        send(scripted_mail_server)


@pytest.mark.parametrize("step", ["RCPT", "DATA", END])
@pytest.mark.parametrize("code", ["550", "552", "553", "554", "555"])
def test_a_permanent_no_is_final(scripted, scripted_mail_server, step, code):
    scripted.says[step] = f"{code} 5.7.1 not here"

    with pytest.raises(MailRefused, match=f"{code} 5.7.1 not here"):
        send(scripted_mail_server)


@pytest.mark.parametrize("code", ["552", "555"])
def test_a_mail_that_is_too_large_is_refused(scripted, scripted_mail_server, code):
    scripted.says["MAIL"] = f"{code} no"

    with pytest.raises(MailRefused):
        send(scripted_mail_server)


@pytest.mark.parametrize("code", ["501", "550", "553", "554"])
def test_a_sender_that_is_not_welcome_is_an_outage(scripted, scripted_mail_server, code):
    scripted.says["MAIL"] = f"{code} not you"

    with pytest.raises(MailServerUnavailable, match=f"SMTP_FROM: {code} not you"):
        send(scripted_mail_server)


@pytest.mark.parametrize("step", [GREETING, "EHLO", "MAIL", "RCPT", "DATA", END])
@pytest.mark.parametrize("reply", ["421 4.3.2 shutting down", "530 5.7.0 log in first", "999 what", "hello"])
def test_what_is_about_the_session_is_an_outage(scripted, scripted_mail_server, step, reply):
    scripted.says |= {step: reply, "HELO": reply}

    with pytest.raises(MailServerUnavailable):
        send(scripted_mail_server)


@pytest.mark.parametrize("step", [GREETING, "EHLO", "MAIL", "RCPT", "DATA"])
def test_a_break_before_the_mail_is_an_outage(scripted, scripted_mail_server, step):
    scripted.says[step] = BREAK_OFF

    with pytest.raises(MailServerUnavailable):
        send(scripted_mail_server)


def test_a_break_within_the_mail_is_an_outage(scripted_mail_server, monkeypatch):
    mail = scripted_mail_server.compose("key", "alice@example.com", "-", "-")
    with scripted_mail_server.session(Interrupt()) as session:
        session.open_envelope(mail)
        request = session._request

        def break_off_after(*command):
            reply = request(*command)
            session._smtp.sock.shutdown(socket.SHUT_RDWR)
            return reply

        monkeypatch.setattr(session, "_request", break_off_after)
        with pytest.raises(MailServerUnavailable):
            session.send(mail)


def test_a_break_after_the_mail_leaves_its_outcome_unknown(scripted, scripted_mail_server):
    scripted.says[END] = BREAK_OFF

    with pytest.raises(MailOutcomeUnknown):
        send(scripted_mail_server)


@pytest.mark.parametrize(
    "words",
    [
        "<alice@example.com>: no",
        "see https://help.example/?a=alice%40example.com",
        "b+alice=40example.com no",
    ],
)
def test_a_reply_is_quoted_without_addresses(scripted, scripted_mail_server, words):
    scripted.says["RCPT"] = f"550 5.1.1 \x1b[31m {words}"

    with pytest.raises(MailRefused, match=r"RCPT: 550 5\.1\.1") as refused:
        send(scripted_mail_server)

    assert "alice" not in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("step", [GREETING, "EHLO", "MAIL", "RCPT", "DATA"])
def test_an_interrupted_mail_is_not_taken(scripted, scripted_mail_server, step):
    scripted.wait_at(step)
    interrupt = Interrupt()
    with ThreadPoolExecutor(1) as thread:
        handed_in = thread.submit(send, scripted_mail_server, interrupt=interrupt)
        eventually(lambda: step in scripted.reached)
        # Again and again, as the worker does: the server may accept before the client watches.
        eventually(lambda: interrupt() or handed_in.done())
        with pytest.raises(MailServerUnavailable):
            handed_in.result()

    assert scripted.mails == []


def test_a_server_has_some_seconds_more_for_its_last_reply(scripted, scripted_mail_server):
    reply = scripted.wait_at(END)
    interrupt = Interrupt()
    with ThreadPoolExecutor(1) as thread:
        handed_in = thread.submit(send, scripted_mail_server, interrupt=interrupt)
        eventually(lambda: scripted.mails)
        interrupt()
        reply.set()

        assert handed_in.result(PATIENCE_SECONDS) is None


def test_an_interrupted_wait_for_the_last_reply_ends_too(scripted, scripted_mail_server, monkeypatch):
    monkeypatch.setattr("likes_service.mailer.LAST_REPLY_GRACE_SECONDS", 0)
    scripted.wait_at(END)
    interrupt = Interrupt()
    with ThreadPoolExecutor(1) as thread:
        handed_in = thread.submit(send, scripted_mail_server, interrupt=interrupt)
        eventually(lambda: scripted.mails)
        interrupt()
        with pytest.raises(MailOutcomeUnknown):
            handed_in.result(PATIENCE_SECONDS)


def test_a_mail_without_an_answer_is_in_doubt(mail_server, inbox):
    async def take_and_hang(server, session, envelope):
        inbox.envelopes.append(envelope)
        server.transport.abort()
        return "250 OK"

    inbox.handle_DATA = take_and_hang

    with pytest.raises(MailOutcomeUnknown):
        send(mail_server)


def test_a_server_that_hangs_after_it_took_the_mail_has_taken_it(mail_server, inbox):
    mail = mail_server.compose("key", "alice@example.com", "-", "-")
    with mail_server.session(Interrupt()) as session:
        session.open_envelope(mail)
        session.send(mail)
        session._smtp.sock.shutdown(socket.SHUT_RDWR)

    assert len(inbox.mails) == 1
