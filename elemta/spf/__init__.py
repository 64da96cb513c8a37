"""SPF: may this client send mail in the name of this domain?

Takes a client address, a domain and a sender, asks the DNS through `elemta.dns.Resolver`, and reports the result of
check_host() with the term behind it.  Never reads a configuration or a clock, never logs, and never decides about
the mail.

All of RFC 7208; RFC 8616 for internationalized senders.
"""

from elemta.spf.evaluate import check_host
from elemta.spf.record import Record, Term, parse
from elemta.spf.result import DEFAULT_LIMITS, Limits, SpfResult

__all__ = ["DEFAULT_LIMITS", "Limits", "Record", "SpfResult", "Term", "check_host", "parse"]
