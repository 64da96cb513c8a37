"""Submission: does the local Postfix take this mail?

One SMTP session for all mails of a run, opened when the first one goes; where nobody answers, none of them is tried
any more.  Blocks; never used on the daemons' loops.  What was surely not taken is told apart from what was refused: the
one is tried again; an address that is refused counts as a bounce, a sender or a mail that is refused says nothing of
the address.

RFC 5321 sections 4.2.1 (replies) and 4.5.3.2 (time-outs), RFC 3461 (notifications).
"""

from __future__ import annotations

import re
import smtplib
from types import TracebackType
from typing import Self

from elemta_milter.reports.outgoing import CLAIMED, POSTPONED, REFUSED, REJECTED, SENT

TIMEOUT = 60.0  # seconds for one answer
_OF_ELSE = re.compile(rb"5\.(?:1\.[078]|[3567]\.\d{1,3})\b")
"""An answer to RCPT that speaks of something else than its address (RFC 3463): of the sender or HELO, which Postfix
refuses no earlier (smtpd_delay_reject), of the system, the protocol, or policy ("Relay access denied")."""


class Submission:
    """A session with the SMTP server at `server`, HOST:PORT."""

    def __init__(self, server: str, helo: str) -> None:
        host, _, port = server.rpartition(":")
        self._host, self._port, self._helo = host.strip("[]"), int(port), helo
        self._smtp: smtplib.SMTP | None = None
        self._silent = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if self._smtp is not None:
            try:
                self._smtp.quit()
            except OSError:  # as all errors of smtplib are
                self._smtp.close()

    def send(self, sender: str, recipient: str, data: bytes) -> tuple[str, str]:
        """Hand a mail over.

        Returns:
            "sent", "refused" (the address), "rejected" (the sender or the mail), "postponed" (surely not taken), or
            "claimed" where nobody can say: the connection broke after the last octet; and what the server said.
        """
        fresh = self._smtp is None
        state, words = self._attempt(sender, recipient, data)
        if state == POSTPONED and self._smtp is None and not fresh:  # the server has hung up since the last mail
            state, words = self._attempt(sender, recipient, data)
        return state, words

    def _attempt(self, sender: str, recipient: str, data: bytes) -> tuple[str, str]:
        if self._silent:  # hundreds of mails would each wait for it
            return POSTPONED, self._silent
        try:
            session = self._session()
        except OSError as error:
            self._silent = f"{self._host}:{self._port} does not answer: {error}"
            return POSTPONED, self._silent
        at_data = False
        try:
            # RFC 3461 section 4.1: a notification of a delay would look like a report that came back
            notify = ("NOTIFY=FAILURE",) if session.has_extn("dsn") else ()
            for step, address, options in ((session.mail, sender, ()), (session.rcpt, recipient, notify)):
                code, text = step(address, options)
                if code >= 400:  # RFC 5321 section 4.2.1
                    session.rset()
                    of_address = step == session.rcpt and not _OF_ELSE.match(text)
                    refused = REFUSED if of_address else REJECTED
                    return (refused if code >= 500 else POSTPONED), _words(code, text)
            at_data = True
            code, text = session.data(data)
        except smtplib.SMTPDataError as error:  # refused before the first octet: the transaction is still open
            self._reset(session)
            return (REJECTED if error.smtp_code >= 500 else POSTPONED), _words(error.smtp_code, error.smtp_error)
        except OSError as error:
            session.close()
            self._smtp = None
            return (CLAIMED if at_data else POSTPONED), f"the connection broke: {error}"
        return (SENT if code < 400 else REJECTED if code >= 500 else POSTPONED), _words(code, text)

    def _reset(self, session: smtplib.SMTP) -> None:
        try:
            session.rset()
        except OSError:  # the next mail takes another session
            session.close()
            self._smtp = None

    def _session(self) -> smtplib.SMTP:
        if self._smtp is None:
            smtp = smtplib.SMTP(self._host, self._port, local_hostname=self._helo, timeout=TIMEOUT)
            smtp.ehlo_or_helo_if_needed()
            self._smtp = smtp
        return self._smtp


def _words(code: int, text: bytes | str) -> str:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(said.split())}"
