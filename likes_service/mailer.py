"""Mails over SMTP (RFC 5321), and what became of each."""

import re
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from common.fields import Email
from common.telemetry import metrics
from likes_service.interrupt import Interrupt

# RFC 5321, 4.5.3.2: a server that checks its caller, the recipient or the mail needs minutes for it.
COMMAND_SECONDS = 5 * 60
DATA_SECONDS = 2 * 60
BLOCK_SECONDS = 3 * 60
LAST_REPLY_SECONDS = 10 * 60
# These waits cannot be interrupted.
CONNECT_SECONDS = 3
QUIT_TIMEOUT_SECONDS = 0.5
# An interrupted session waits this long for the reply that says what became of a mail.
LAST_REPLY_GRACE_SECONDS = 3

# Long addresses are not folded: some servers take a folded one for two.
POLICY = SMTP.clone(max_line_length=998)

EMAIL: TypeAdapter[str] = TypeAdapter(Email)
LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)

# About the session, not about the mail: the server shuts down, or wants a login.
SESSION_CODES = {421, 530}
# MAIL names our own sender. Of its permanent errors only these are about the mail: its size, its parameters.
MAIL_CODES = {552, 555}

# Also as URLs and mailing lists write it.
ADDRESS = re.compile(r"\S+(?:@|=40|%40)\S+")
MAX_WORDS = 200


class MailServerUnavailable(Exception):
    """The server takes no mail now, whichever it is: all mails wait."""


class MailDeferred(Exception):
    """The server does not take this mail now. It may later; other mails need not wait."""


class MailRefused(Exception):
    """The server will never take this mail."""


class MailOutcomeUnknown(Exception):
    """The session broke off when the server had the whole mail: it may have taken it."""


FAILURES = (MailServerUnavailable, MailDeferred, MailRefused, MailOutcomeUnknown)


@dataclass(frozen=True)
class Mail:
    """A mail as it goes out."""

    to: str
    message: bytes


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in, and by whom."""

    host: str
    port: int
    sender: str
    user: str = ""
    password: str = ""
    starttls: bool = False
    implicit_tls: bool = False

    @property
    def address(self) -> str:
        """The sender's, without a name beside it."""
        return parseaddr(self.sender)[1]

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2] or "localhost"

    @contextmanager
    def session(self, interrupt: Interrupt) -> Iterator["SmtpSession"]:
        """A session in which a mail can be handed in at once. Raises MailServerUnavailable."""
        with closing(interrupt), metrics.mail_sessions.time(errors=FAILURES):
            try:
                smtp = self._open(interrupt)
            except OSError as exc:
                raise unavailable(exc) from exc
            try:
                yield SmtpSession(self.address, smtp, interrupt)
            except (MailDeferred, MailRefused):
                _quit(smtp)
                raise
            else:
                _quit(smtp)
            finally:
                smtp.close()

    def _open(self, interrupt: Interrupt) -> smtplib.SMTP:
        smtp = _Connection(self, interrupt)
        try:
            smtp.ehlo_or_helo_if_needed()
            if self.starttls and not self.implicit_tls:
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo_or_helo_if_needed()
            if self.user:
                smtp.login(self.user, self.password)
        except OSError:
            smtp.close()
            raise
        return smtp

    def compose(self, key: str, to: str, subject: str, text: str) -> Mail:
        """A mail of plain text. The same mail has the same key, whenever it is composed.

        Raises MailRefused when the address is none that a mail can have.
        """
        try:
            username, _, domain = EMAIL.validate_python(to).rpartition("@")
        except ValidationError:
            # Without its cause, which repeats the address.
            raise MailRefused("the address on file is not valid") from None
        message = EmailMessage(POLICY)
        message["From"] = self.sender
        message["To"] = Address(username=username, domain=domain)
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{key}@{self.domain}>"
        message["Subject"] = subject
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no auto-responder replies
        message.set_content(text, cte="quoted-printable")
        return Mail(to, message.as_bytes())


class _Connection(smtplib.SMTP):
    """A connection that can be interrupted from its first byte on."""

    def __init__(self, server: MailServer, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._tls = ssl.create_default_context() if server.implicit_tls else None
        # By itself smtplib would ask the DNS for this machine's name, for as long as that takes.
        super().__init__(server.host, server.port, server.domain, timeout=COMMAND_SECONDS)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Called by smtplib, as in its own SMTP_SSL."""
        connection = socket.create_connection((host, port), CONNECT_SECONDS)
        connection.settimeout(timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._interrupt.watch(connection)
        return self._tls.wrap_socket(connection, server_hostname=host) if self._tls else connection


class SmtpSession:
    """A session with a mail server, for one mail: first its envelope, then the mail."""

    def __init__(self, sender: str, smtp: smtplib.SMTP, interrupt: Interrupt) -> None:
        self._sender = sender
        self._smtp = smtp
        self._interrupt = interrupt

    def open_envelope(self, mail: Mail) -> None:
        """Name the sender and the recipient. Raises MailServerUnavailable, MailDeferred, MailRefused."""
        code, words = self._request("MAIL", f"FROM:<{self._sender}>", COMMAND_SECONDS)
        if code >= 500 and code not in MAIL_CODES:
            raise MailServerUnavailable(f"SMTP_FROM: {_quote(code, words)}")
        _require_success("MAIL", code, words)
        _require_success("RCPT", *self._request("RCPT", f"TO:<{mail.to}>", COMMAND_SECONDS))

    def send(self, mail: Mail) -> None:
        """Hand the mail in. Raises MailServerUnavailable, MailDeferred, MailRefused, MailOutcomeUnknown."""
        code, words = self._request("DATA", "", DATA_SECONDS)
        if code != 354:
            _raise_failure("DATA", code, words)
        try:
            _set_timeout(self._smtp, BLOCK_SECONDS)
            self._smtp.send(LEADING_DOT.sub(b"..", mail.message))
        except OSError as exc:
            raise unavailable(exc) from exc
        _require_success("the mail", *self._end())

    def _end(self) -> tuple[int, bytes]:
        """Send the dot. From here on the server may take the mail, whether or not its reply arrives."""
        self._interrupt.grace_seconds = LAST_REPLY_GRACE_SECONDS
        try:
            _set_timeout(self._smtp, LAST_REPLY_SECONDS)
            self._smtp.send(b".\r\n")
            return self._smtp.getreply()
        except OSError as exc:
            raise MailOutcomeUnknown(f"no reply to the mail: {_reason(exc)}") from exc

    def _request(self, command: str, arguments: str, seconds: float) -> tuple[int, bytes]:
        try:
            _set_timeout(self._smtp, seconds)
            return self._smtp.docmd(command, arguments)
        except OSError as exc:
            raise unavailable(exc) from exc


def unavailable(exc: OSError) -> MailServerUnavailable:
    return MailServerUnavailable(_reason(exc))


def _reason(exc: OSError) -> str:
    if isinstance(exc, smtplib.SMTPAuthenticationError) and exc.smtp_code >= 500:
        return f"it rejects SMTP_USER or SMTP_PASSWORD: {_quote(exc.smtp_code, exc.smtp_error)}"
    if isinstance(exc, smtplib.SMTPResponseException):
        return f"{type(exc).__name__}: {_quote(exc.smtp_code, exc.smtp_error)}"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"TLS: its certificate is not valid: {exc.verify_message}"
    return f"TLS: {exc}" if isinstance(exc, ssl.SSLError) else str(exc) or type(exc).__name__


def _require_success(step: str, code: int, words: bytes) -> None:
    if not 200 <= code < 300:
        _raise_failure(step, code, words)


def _raise_failure(step: str, code: int, words: bytes) -> NoReturn:
    failure: type[Exception] = MailServerUnavailable
    if 400 <= code < 600 and code not in SESSION_CODES:
        failure = MailDeferred if code < 500 else MailRefused
    raise failure(f"{step}: {_quote(code, words)}")


def _quote(code: int, words: bytes | str) -> str:
    """A reply as the log may have it: in one line, and without addresses."""
    text = words.decode("ascii", "replace") if isinstance(words, bytes) else words
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return f"{code} {ADDRESS.sub('(address)', printable)[:MAX_WORDS]}".rstrip()


def _set_timeout(smtp: smtplib.SMTP, seconds: float) -> None:
    if smtp.sock:
        smtp.sock.settimeout(seconds)


def _quit(smtp: smtplib.SMTP) -> None:
    with suppress(OSError):
        _set_timeout(smtp, QUIT_TIMEOUT_SECONDS)
        smtp.quit()
