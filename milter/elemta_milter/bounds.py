"""Bounds: how much of one mail does the milter hold, and how many mails at once?

The one table.  Past a bound a mail is cut (`Message.truncated` says which bound), its rest is counted but not
kept, and it is judged by what was seen; nothing grows without end and nothing crashes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The table.

    Attributes:
        connections: milter connections of one worker; one more is told "try again later" at every step.
        packet: octets of one packet from the MTA, such as one header field. Over it libmilter hangs up; its own limit,
            65,535, is enough for Postfix (which cuts a field at 60,000) but not for every MTA.
        header_fields: header fields kept of one message.
        header_octets: octets of header fields kept of one message, names and values.
        recipients: recipients kept of one message; Postfix's own smtpd_recipient_limit is 1,000.
        body_memory: octets of a body held in memory; a longer one is spooled to a file.
        body_octets: octets of a body kept at all; Postfix's message_size_limit should be far below.
        removals: header fields taken out of one message. Postfix searches the header anew for each.
        reply_octets: octets of the text of an SMTP reply; libmilter takes 980 on a line.
        progress: seconds of waiting after which the MTA is told that we are still at work.
        patience: seconds that an MTA surely waits; after more of them it is seen whether it is still there, before a
            decision is carried out.
        margin: seconds past the mail's budget after which a decision is no longer waited for.
    """

    connections: int = 1000
    packet: int = 2 << 20
    header_fields: int = 4000
    header_octets: int = 1 << 20
    recipients: int = 10_000
    body_memory: int = 1 << 20
    body_octets: int = 1 << 30
    removals: int = 1000
    reply_octets: int = 900
    progress: float = 10.0
    patience: float = 1.0
    margin: float = 5.0


BOUNDS = Bounds()

NAMELESS = b""
"""Fields past the bounds are counted by name, up to `header_octets` of names; those past that too, under this one.
Authentication-Results are never among them."""
