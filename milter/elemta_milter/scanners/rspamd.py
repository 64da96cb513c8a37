"""Rspamd: how is it asked about a mail, and how does the question end in time?

One HTTP request to its normal worker (or its proxy): the mail as it came, and in header fields what Postfix knows of
client and envelope.  Blocking, for threads.  Whatever goes wrong is a `ServerError`: no connection, no time, a status
that is not 200, half an answer, garbage.  A server that answers an octet a second gets no more time than a silent one.

RFC 9112 section 6 (`Content-Length`: an answer that ends early is none).
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from elemta.addresses import a_label
from elemta.facts import Message
from elemta.servers import THREADS, ServerError
from elemta_milter.scanners import head
from elemta_milter.scanners.in_time import UNTIL, InTime, left
from elemta_milter.scanners.rspamd_reply import SHOWN, Reply, parse

LONGEST_REPLY = 4 << 20
LONGEST_HEADER = 60_000
"""Octets of all header fields; Rspamd hangs up at 80 KiB. Recipients beyond are not told."""
IN_ONE_PIECE = 256 << 10
"""A mail up to this size is sent in one piece; longer ones as their body is read."""

_UNFIT = re.compile(rb"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a mail.

    Attributes:
        message: the mail.
        host: our name.
        tag: the class of mail, for Rspamd's own settings (`MTA-Tag`); "" for none.
        settings_id: the name of settings that stand in Rspamd's configuration; "" for none.
        settings: settings for this very mail, as JSON (`rspamd_symbols.settings`); "" for none.
    """

    message: Message
    host: str
    tag: str = ""
    settings_id: str = ""
    settings: str = ""

    def fields(self) -> dict[str, bytes]:
        """The request's header fields."""
        envelope = self.message.envelope
        client = envelope.client
        texts = {
            "IP": client.address_text,
            "Helo": client.helo,
            "Hostname": client.name,  # "unknown" would be taken for a name
            "From": _address(envelope.sender),
            "User": client.login,
            "Queue-Id": envelope.queue_id,
            "TLS-Version": client.tls,
            "TLS-Cipher": client.cipher,
            "MTA-Name": self.host,
            "MTA-Tag": self.tag,
            "Settings-ID": self.settings_id,
            "Settings": self.settings,
            "Deliver-To": envelope.recipients[0] if len(envelope.recipients) == 1 else "",
            "Flags": "milter,groups",
        }
        found = {name: _fit(text) for name, text in texts.items() if text}
        if envelope.recipients:
            found["Rcpt"] = _recipients(envelope.recipients, LONGEST_HEADER - sum(map(len, found.values())))
        return found


@dataclass
class Rspamd:
    """Asks one kind of servers; may be shared by threads.

    Attributes:
        password: sent with every question; "" for none.
        ca: a file of certificates by one of which the server's must be signed; "" for those of the system.
    """

    password: str = field(default="", repr=False)
    ca: str = ""

    def __post_init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc: a mail goes where the configuration says
        self._session.headers.clear()
        self._session.verify = self.ca or _system_authorities()
        adapter = InTime(pool_maxsize=THREADS, max_retries=0)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def close(self) -> None:
        """Give back connections."""
        self._session.close()

    def ask(self, url: str, question: Question, until: float) -> Reply:
        """Ask the server at `url` about a mail.

        Args:
            url: "http://127.0.0.1:11333".
            question: what is asked.
            until: `time.monotonic()` at which nobody waits any more.

        Raises:
            ServerError: it gave no clear answer.
        """
        fields = question.fields()
        if self.password:
            fields["Password"] = self.password.encode()
        return parse(*self._exchange("POST", f"{url}/checkv2", until, fields, _body(question.message)))

    def ping(self, url: str, until: float) -> None:
        """Ask the server at `url` for a sign of life.

        Raises:
            ServerError: it gave none.
        """
        status, said = self._exchange("GET", f"{url}/ping", until)
        if status != 200 or said.strip() != b"pong":
            raise ServerError(f"HTTP status {status} and {said[:50]!r} instead of pong")

    def _exchange(
        self,
        method: str,
        url: str,
        until: float,
        fields: Mapping[str, bytes] | None = None,
        body: Any = None,  # noqa: ANN401 - octets, or what yields them
    ) -> tuple[int, bytes]:
        """Give the status and all octets of the answer."""
        reset = UNTIL.set(until)
        try:
            # Rspamd closes each connection; one that is kept could be closed just when it is wanted
            sent = {**(fields or {}), "Connection": b"close"}
            with self._session.request(
                method, url, headers=sent, data=body, timeout=left(), allow_redirects=False, stream=True
            ) as response:
                return response.status_code, _all(response)
        except (requests.RequestException, HTTPError, http.client.HTTPException) as error:
            raise ServerError(_why(error)) from error
        except ValueError as error:  # a chunk of negative length, a Location that is no URL: neither library wraps it
            raise ServerError(f"garbage instead of an answer: {error}") from error
        finally:
            UNTIL.reset(reset)


def _system_authorities() -> str | bool:
    """Give where the system keeps the authorities it believes; True, where it has none, stands for those of certifi."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


class _Body:
    """A long mail, read while it is sent."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def __len__(self) -> int:
        return len(self._message.once(head)) + self._message.body.size

    def __iter__(self) -> Iterator[bytes]:
        yield self._message.once(head)
        for chunk in self._message.body.chunks():
            left()
            yield chunk


def _body(message: Message) -> bytes | _Body:
    """Give the mail as it came."""
    if message.body.size <= IN_ONE_PIECE:
        return message.once(head) + b"".join(message.body.chunks())
    return _Body(message)


def _all(response: requests.Response) -> bytes:
    found = bytearray()
    for chunk in response.raw.stream(1 << 16, decode_content=False):  # nothing is unpacked: we asked for nothing packed
        found += chunk
        if len(found) > LONGEST_REPLY:
            raise ServerError(f"its answer is longer than {LONGEST_REPLY >> 20} MiB")
    return bytes(found)


def _recipients(addresses: tuple[str, ...], room: int) -> bytes:
    """Give as many recipients as there is room for."""
    found: list[bytes] = []
    for address in addresses:
        text = _fit(_address(address))
        room -= len(text) + 1
        if room < 0:
            break
        found.append(text)
    return b",".join(found)


def _address(text: str) -> str:
    """Give an address as it stands in SMTP; its domain as A-labels, which older Rspamds know alone."""
    local, at, domain = text.rpartition("@")
    return f"<{text}>" if domain.isascii() else f"<{local}{at}{a_label(domain) or domain}>"


def _fit(text: str) -> bytes:
    """Give the value of a header field: UTF-8 without controls, which could end it."""
    return _UNFIT.sub(b"?", text.encode("utf-8", "surrogateescape")).strip()


def _why(error: BaseException) -> str:
    """Give the innermost cause of a failure, in words: requests and urllib3 wrap it several times."""
    inner = error
    for _ in range(5):
        reason = getattr(inner, "reason", None)
        below = (
            reason
            if isinstance(reason, BaseException)
            else next(
                (each for each in inner.args if isinstance(each, BaseException)), inner.__cause__ or inner.__context__
            )
        )
        if below is None:
            break
        inner = below
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if type(inner) is ValueError:  # urllib3's, where it reads the length of a chunk
        return "its answer broke off: a chunk has no length"
    if isinstance(inner, http.client.IncompleteRead):
        return f"its answer broke off: {inner}"
    if isinstance(inner, http.client.BadStatusLine) and not isinstance(inner, ConnectionError):
        return f"garbage instead of an answer: {str(inner)[:SHOWN]!r}"
    return str(getattr(inner, "strerror", None) or inner) or type(inner).__name__
