"""Reply: how does an SMTP reply of the policy reach the client through the milter protocol?

Takes "550 5.7.1 text" and gives what libmilter's setreply wants.  Never raises: the words in it may be a stranger's.
RFC 5321 section 4.2 (replies), RFC 3463 (enhanced status codes).
"""

from __future__ import annotations

import re

from elemta_milter.bounds import BOUNDS

_REPLY = re.compile(r"([45][0-9]{2})(?:[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})(?= |$))?[ ]?(.*)", re.ASCII | re.DOTALL)
_UNSAFE = re.compile(r"[^\x20-\x7e]")  # RFC 5321 section 4.2: textstring is printable ASCII


def split(reply: str) -> tuple[str, str | None, str] | None:
    """Give code, enhanced code (None without one) and text with its "%" doubled; None when it is no reply."""
    match = _REPLY.fullmatch(reply)
    if match is None:
        return None
    code, enhanced, text = match.groups()
    if enhanced is not None and enhanced[0] != code[0]:  # RFC 3463 section 2: the class repeats the code's
        enhanced = None
    text = _UNSAFE.sub("?", text)[: BOUNDS.reply_octets]
    text = text[: BOUNDS.reply_octets - text.count("%")]
    return code, enhanced, text.replace("%", "%%")  # the MTA takes the text as a format string
