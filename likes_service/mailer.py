"""Mails over SMTP (RFC 5321), and what became of each."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

# For each step of a session. A worker that is stopped waits as long for the mail in hand.
SMTP_TIMEOUT_SECONDS = 3
QUIT_TIMEOUT_SECONDS = 0.5

# Long addresses are not folded: some servers take a folded one for two.
POLICY = SMTP.clone(max_line_length=998)


class MailServerUnavailable(Exception):
    """The mail has not been taken, for sure; later it may be."""


class MailRefused(Exception):
    """The server will never take this mail."""


class MailOutcomeUnknown(Exception):
    """The conversation broke off when the mail may have been taken already."""


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

    @property
    def address(self) -> str:
        """The sender's, without a name beside it."""
        return parseaddr(self.sender)[1]

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2] or "localhost"

    @contextmanager
    def session(self) -> Iterator["SmtpSession"]:
        """A conversation in which a mail can be handed in at once; MailServerUnavailable if there is none."""
        try:
            smtp = self._open()
        except OSError as exc:
            raise _away(exc) from exc
        try:
            yield SmtpSession(self.address, smtp)
            _quit(smtp)
        finally:
            smtp.close()

    def _open(self) -> smtplib.SMTP:
        # By itself smtplib would ask the DNS for this machine's name, for as long as that takes.
        smtp = smtplib.SMTP(self.host, self.port, self.domain, timeout=SMTP_TIMEOUT_SECONDS)
        try:
            smtp.ehlo_or_helo_if_needed()
            if self.starttls:
                smtp.starttls(context=ssl.create_default_context())
            if self.user:
                smtp.login(self.user, self.password)
        except OSError:
            smtp.close()
            raise
        return smtp

    def compose(self, key: str, to: str, subject: str, text: str) -> Mail:
        """A mail of plain text. The same mail has the same key, whenever it is composed."""
        message = EmailMessage(POLICY)
        message["From"] = self.sender
        message["To"] = to
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{key}@{self.domain}>"
        message["Subject"] = subject
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no auto-responder replies
        message.set_content(text, cte="quoted-printable")
        return Mail(to, message.as_bytes())


class SmtpSession:
    def __init__(self, sender: str, smtp: smtplib.SMTP) -> None:
        self._sender = sender
        self._smtp = smtp

    def send(self, mail: Mail) -> None:
        """Hand the mail in. Raises MailServerUnavailable, MailRefused, MailOutcomeUnknown."""
        try:
            sender, _ = self._smtp.mail(self._sender)
            recipient, _ = self._smtp.rcpt(mail.to)
        except OSError as exc:
            raise _away(exc) from exc
        if sender >= 300:
            # Whatever it is that the server has against us, it is not about this mail.
            raise MailServerUnavailable(f"the sender was answered {sender}")
        _require_success(recipient, "recipient")
        try:
            taken, _ = self._smtp.data(mail.message)
        except smtplib.SMTPDataError as exc:
            taken = exc.smtp_code
        except OSError as exc:
            raise MailOutcomeUnknown(f"the mail was answered {type(exc).__name__}") from exc
        _require_success(taken, "mail")


def _require_success(code: int, what: str) -> None:
    if code >= 500:
        raise MailRefused(f"the {what} was answered {code}")
    if code >= 300:
        raise MailServerUnavailable(f"the {what} was answered {code}")


def _away(exc: OSError) -> MailServerUnavailable:
    # Not the server's own words: they may repeat an address.
    code = exc.smtp_code if isinstance(exc, smtplib.SMTPResponseException) else exc.errno
    return MailServerUnavailable(f"{type(exc).__name__} {code or ''}".strip())


def _quit(smtp: smtplib.SMTP) -> None:
    with suppress(OSError):
        if smtp.sock:
            smtp.sock.settimeout(QUIT_TIMEOUT_SECONDS)
        smtp.quit()
