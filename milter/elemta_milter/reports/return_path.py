"""Return path: which of our reports does this bounce answer?

Every report leaves with an envelope sender of its own, LOCAL+TOKEN@DOMAIN (Postfix: recipient_delimiter), so that a
bounce names the report and the address that did not take it, whatever stands inside.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from elemta.addresses import split

_TOKEN = re.compile(r"r[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """Where bounces of reports come back to.

    Attributes:
        base: the address without a token, lower case.
    """

    base: str

    def address(self, token: str) -> str:
        """The envelope sender for one report to one address."""
        local, domain = split(self.base)
        return f"{local}+{token}@{domain}"

    def token(self, address: str) -> str | None:
        """The token in an address; "" in the plain address, None in any other."""
        address = address.lower()
        if address == self.base:
            return ""
        local, domain = split(self.base)
        found_local, found_domain = split(address)
        found, plus, token = found_local.partition("+")
        if found_domain != domain or found != local or not plus or not _TOKEN.fullmatch(token):
            return None
        return token


def new_token(secret: bytes, report: str, address: str) -> str:
    """The token of the report with this id to this address; who does not know the secret forges no bounce."""
    return "r" + hmac.digest(secret, f"{report} {address}".encode(), "sha256").hex()[:16]
