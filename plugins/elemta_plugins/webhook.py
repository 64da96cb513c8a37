"""webhook: what does a web service of yours say of this mail?

Takes the whole message and what other checks saw; sends it as JSON in one POST and reports the service's answer: a
result word, and a reason, a score and labels for rules.  The body goes along as far as the option says, by default not
at all.  Where there is a secret, the request is signed (HMAC-SHA-256), so that the service knows who asks.  What is
sent and what may be answered is in docs/plugins.md; any other answer, or none, is trouble.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import socket
import time
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import requests
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from elemta import (
    CLASS,
    UNTIL,
    Check,
    Field,
    Finding,
    Message,
    Options,
    Result,
    Seen,
    ServerError,
    Servers,
    Setting,
    Size,
    Value,
)

ANSWER = 1 << 16  # octets of an answer
PATIENCE = 10.0  # seconds, where nobody waits for a given time
_PIECE = 1 << 13

Label = Annotated[str, Setting(min_length=1, max_length=100)]


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f'"{text}" is not the address of a web service; write one such as https://127.0.0.1:8080/mail')
    _ = parts.port  # raises ValueError
    return text


class WebhookOptions(Options):
    """Whom to ask, and how."""

    url: Annotated[str, AfterValidator(_url)] = Setting(description="where the mail's facts are sent (POST)")
    secret: str = Setting("", description="signs the request; best as file:/run/secrets/webhook; default: unsigned")
    body: Annotated[Size, Setting(le=16 << 20)] = Setting(0, description="octets of the body that are sent along")


class Said(BaseModel):
    """What the service may answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    result: Result
    reason: str = Setting("", max_length=500)
    score: float | None = Setting(None, allow_inf_nan=False)
    labels: tuple[Label, ...] = Setting((), max_length=20)


class Webhook(Check[Message]):
    """What does a web service of yours say of this mail?"""

    name = "webhook"
    after: ClassVar = (
        *("iprev", "spf", "dnsbl", "geoip", "dkim", "arc", "dmarc", "from_login", "sender_login"),
        *("clamav", "rspamd", "attachments", "content", "uribl", "imitation", "first_contact"),
    )
    fields: ClassVar = {
        "score": Field(float, "the score that the service gave"),
        "labels": Field(tuple, "the labels that the service gave"),
    }
    results: ClassVar = tuple(each for each in Result if each not in (Result.TEMPERROR, Result.PERMERROR))
    Options = WebhookOptions

    async def open(self) -> None:
        """Ask nobody yet."""
        self._servers = Servers(self.name, [self.options.url], _ping)

    async def close(self) -> None:
        """Ask no more."""
        self._servers.close()

    def dependencies(self) -> dict[str, str]:
        """The service."""
        return dict(self._servers.states)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Ask the service."""
        octets = json.dumps(_told(self.tools.host, facts, seen, self.options.body)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "elemta"}
        if self.options.secret:
            stamp = str(int(self.tools.clock()))
            signed = hmac.new(self.options.secret.encode(), f"{stamp}.".encode() + octets, "sha256").hexdigest()
            headers |= {"Elemta-Timestamp": stamp, "Elemta-Signature": f"sha256={signed}"}
        until = min(UNTIL.get(), time.monotonic() + PATIENCE)
        said = await self._servers.ask(lambda url, limit: _asked(url, octets, headers, limit), until)
        if said.result not in self.results:
            raise ServerError(f"it answered the result {said.result}, which is not its own to give")
        fields: dict[str, Value] = {"labels": said.labels}
        if said.score is not None:
            fields["score"] = said.score
        return self.finding(said.result, said.reason, **fields)


def _asked(url: str, octets: bytes, headers: dict[str, str], until: float) -> Said:
    """Ask once; blocks until `until` (time.monotonic) at most, but for a server that sends its header in drops.

    Raises:
        OSError: there is no lawful answer; the text says why.
    """
    try:
        answer = _posted(url, octets, headers, until)
    except requests.RequestException as error:
        raise ServerError(_why(error)) from error
    except ValueError as error:  # a chunk of negative length, a Location that is no URL: requests does not wrap it
        raise ServerError(f"its answer is not lawful: {error}") from error
    try:
        return Said.model_validate_json(answer, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ServerError(f"its answer is not lawful: {where + ': ' if where else ''}{first['msg'][:200]}") from None


def _posted(url: str, octets: bytes, headers: dict[str, str], until: float) -> bytes:
    """What is answered, as it came."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy and no password that the configuration does not name
        left = max(0.1, until - time.monotonic())
        with session.post(
            url, data=octets, headers=headers, timeout=left, allow_redirects=False, stream=True
        ) as response:
            if response.status_code != requests.codes.ok:
                raise ServerError(f"it answered with status {response.status_code}")
            answer = b""
            for chunk in response.iter_content(_PIECE):
                answer += chunk
                if len(answer) > ANSWER:
                    raise ServerError(f"its answer is longer than {ANSWER >> 10} KiB")
                if time.monotonic() > until:
                    raise ServerError("its answer did not end in time")
    return answer


def _why(error: requests.RequestException) -> str:
    """The innermost cause, in words: requests and urllib3 wrap it several times."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "its answer broke off"
    inner: BaseException = error
    while below := inner.__cause__ or inner.__context__:
        inner = below
    if isinstance(error, requests.Timeout) or isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, http.client.BadStatusLine) and not isinstance(inner, ConnectionError):
        return f"garbage instead of an answer: {str(inner)[:50]!r}"
    return getattr(inner, "strerror", None) or str(inner)[:200] or type(inner).__name__


def _ping(url: str, until: float) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), max(0.1, until - time.monotonic())).close()


def _told(host: str, mail: Message, seen: Seen, most: int) -> dict[str, Any]:
    """What the service is told; docs/plugins.md promises it."""
    envelope, client = mail.envelope, mail.envelope.client
    return {
        "version": 1,
        "host": host,
        "class": CLASS.get(),
        "client": {
            "address": client.address_text,
            "name": client.name,
            "helo": _clean(client.helo),
            "login": _clean(client.login),
            "tls": client.tls,
        },
        "sender": _clean(envelope.sender),
        "recipients": [_clean(each) for each in envelope.recipients],
        "queue_id": envelope.queue_id,
        "headers": [[_text(name), _text(value).strip()] for name, value in mail.headers],
        "body": base64.b64encode(_beginning(mail, most)).decode() if most else "",
        "body_size": mail.body.size,
        "findings": {
            name: {
                "result": finding.result,
                "reason": _clean(finding.reason),
                "fields": {key: _plain(value) for key, value in finding.fields.items()},
            }
            for name, finding in seen.items()
        },
    }


def _beginning(mail: Message, most: int) -> bytes:
    found = bytearray()
    for chunk in mail.body.chunks():
        found += chunk[: most - len(found)]
        if len(found) >= most:
            break
    return bytes(found)


def _plain(value: Value) -> Any:  # noqa: ANN401 - what JSON has
    if isinstance(value, tuple):
        return [_clean(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else _clean(str(value))


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON readers refuse."""
    return text.encode("utf-8", "backslashreplace").decode()
