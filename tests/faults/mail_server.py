"""What the mail server of the faults does: it catches every mail, and defers some while it is told to."""

import signal
from typing import Any

from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP, Envelope, Session

DEFER, ACCEPT = signal.SIGUSR1, signal.SIGUSR2


class DeferringMailbox(Mailbox):
    """From `DEFER` to `ACCEPT`, it defers the mails to every second user: those with an even number."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._is_deferring = False
        for number in (DEFER, ACCEPT):
            signal.signal(number, self._switch)

    def _switch(self, number: int, _: object) -> None:
        self._is_deferring = number == DEFER

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._is_deferring and address.partition("@")[0][-1] in "02468":
            return "451 4.7.1 greylisted"
        envelope.rcpt_tos.append(address)
        return "250 OK"
