"""rspamd: what does Rspamd make of this mail?

Takes the whole mail and all that is known of client and envelope, and asks one of several Rspamds.  Reports its action,
score and symbols; the result word is `pass` for "no action", `neutral` where nothing is decided ("greylist", "soft
reject", or not looked at), `policy` for "add header", "rewrite subject", "quarantine" and actions that its
administrator named, `fail` for "reject" and "discard".  No clear answer is trouble.

Nothing is refused by itself: rules judge.  What Rspamd's modules want changed in a mail that is kept (`milter` in its
reply) is proposed as edits, less what is ours to say: Authentication-Results in our name, DKIM signatures, ARC seals.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema, model_validator
from pydantic import Field as Setting

from elemta.check import CLASS, UNTIL, Check, Field, Options, Seen
from elemta.config.problems import quoted
from elemta.config.section import Positive
from elemta.config.types import Size, size_text
from elemta.facts import Message
from elemta.findings import Finding, Result, Value
from elemta.servers import Servers
from elemta_milter.scanners import head
from elemta_milter.scanners.rspamd import Question, Rspamd
from elemta_milter.scanners.rspamd_edits import edits
from elemta_milter.scanners.rspamd_reply import Reply
from elemta_milter.scanners.rspamd_symbols import settings

RESULTS = {
    "no action": Result.PASS,
    "greylist": Result.NEUTRAL,
    "soft reject": Result.NEUTRAL,
    "reject": Result.FAIL,
    "discard": Result.FAIL,
}
"""What an action is called; all others are `policy`."""
_PLAIN = re.compile(r"[!-~]+")
SHOWN = 5  # symbols told in the reason, problems told in a warning
MOST = 200  # symbols, options and groups that are kept as facts


def rspamd_url(text: str) -> str:
    """http://HOST:PORT or https://HOST:PORT, and a path where there is one before /checkv2."""
    try:
        url = urlsplit(text)
        known = url.scheme in ("http", "https") and url.hostname and url.port != 0
        if known and not (url.query or url.fragment or url.username) and _PLAIN.fullmatch(text):
            return text.rstrip("/")
    except ValueError:
        pass
    raise ValueError(f"{quoted(text)} is no address of Rspamd; write http://127.0.0.1:11333")


RspamdUrl = Annotated[
    str,
    AfterValidator(rspamd_url),
    WithJsonSchema({"type": "string", "x-kind": "an address of Rspamd", "examples": ["http://127.0.0.1:11333"]}),
]


def rspamd_password(text: str) -> str:
    """A password as a field of HTTP can hold it; never told in an error."""
    if text != text.strip() or any(each in text for each in "\r\n\0"):
        raise ValueError("the password has several lines, or a blank around it, which HTTP cannot send")
    return text


def _certificates(path: str) -> str:
    if not Path(path).is_file():
        raise ValueError(f"there is no file {quoted(path)}")
    try:
        ssl.create_default_context(cafile=path)
    except OSError:  # no PEM in it, or not to be read
        raise ValueError(f"{quoted(path)} holds no certificates in PEM that can be read") from None
    return path


class Authorities(BaseModel):
    """Whose certificates are believed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, AfterValidator(_certificates)] = Setting(description="certificates in PEM")


class RspamdOptions(Options):
    """Options of `rspamd`."""

    url: RspamdUrl | tuple[RspamdUrl, ...] = Setting(
        "http://127.0.0.1:11333", description="Rspamd's normal worker, or several: the first that answers is asked"
    )
    balance: bool = Setting(False, description="ask several in turn, instead of always the first that answers")
    timeout: Positive | None = Setting(
        10.0, description="give up after this time, all servers together; keep it above Rspamd's own task_timeout (8s)"
    )
    max_size: Size = Setting(
        50 << 20,
        description="larger mail is not looked at: result neutral, skipped; keep it below Rspamd's max_message",
    )
    password: Annotated[str, AfterValidator(rspamd_password)] = Setting(
        "", repr=False, description="where Rspamd asks for one, as its proxy does"
    )
    ca: Authorities | None = Setting(
        None,
        description="of https: the authorities that the server's certificate must come from; default: the system's",
    )
    settings_id: str = Setting("", description="the id of settings in Rspamd's configuration to use for this mail")
    hand_over: bool = Setting(
        False,
        description="tell Rspamd what our checks spf, dkim, dmarc and arc found, so that it does not look again; "
        "of its own settings only those with a priority above low count then",
    )
    edits: bool = Setting(
        True,
        description="make the changes to kept mail that Rspamd asks for: header fields, subject, recipients, sender",
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """All servers, in order."""
        return (self.url,) if isinstance(self.url, str) else self.url

    @model_validator(mode="after")
    def _lawful(self) -> RspamdOptions:
        if not self.urls:
            raise ValueError("rspamd needs a url; write http://127.0.0.1:11333")
        if self.settings_id and self.hand_over:
            raise ValueError(
                "settings_id and hand_over exclude each other: Rspamd takes one set of settings for a mail"
            )
        return self


class RspamdCheck(Check[Message]):
    """What does Rspamd make of this mail?"""

    name = "rspamd"
    after = ("spf", "dkim", "dmarc", "arc")  # for hand_over
    fields: ClassVar = {
        "action": Field(
            str, "what it would do: no action, greylist, add header, rewrite subject, soft reject, reject…"
        ),
        "score": Field(float, "the sum of its symbols' scores"),
        "required": Field(float, "the score from which on its action is reject"),
        "symbols": Field(tuple, "its rules that matched: BAYES_SPAM; the heaviest first"),
        "scores": Field(tuple, "the same with their scores: BAYES_SPAM=5.1"),
        "options": Field(tuple, "what they say: R_SPF_ALLOW=+ip4:192.0.2.1; a stranger's words"),
        "groups": Field(tuple, "groups of symbols with their scores: headers=1"),
        "message": Field(str, "what it would tell the client"),
        "subject": Field(str, "the subject it would write; a stranger's words"),
        "skipped": Field(bool, "it was not asked, or did not look at all of it"),
        "server": Field(str, "the Rspamd that answered"),
    }
    results: ClassVar = (Result.PASS, Result.NEUTRAL, Result.POLICY, Result.FAIL, Result.TEMPERROR)
    Options = RspamdOptions
    options: RspamdOptions

    @classmethod
    def waits_for(cls, options: RspamdOptions | None) -> tuple[str, ...]:
        """Only what is handed over is waited for."""
        return cls.after if options is not None and options.hand_over else ()

    async def open(self) -> None:
        """No server has been asked yet."""
        self._client = Rspamd(self.options.password, self.options.ca.file if self.options.ca else "")
        self._servers = Servers(self.name, self.options.urls, self._client.ping, balance=self.options.balance)

    async def close(self) -> None:
        """Ask no more."""
        self._servers.close()
        self._client.close()

    def dependencies(self) -> dict[str, str]:
        """Every Rspamd."""
        return dict(self._servers.states)

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Ask."""
        size = len(facts.once(head)) + facts.body.size
        if size > self.options.max_size:
            most = size_text(self.options.max_size)
            return self.finding(Result.NEUTRAL, f"not asked: {size} octets, more than max_size {most}", skipped=True)
        told = settings(seen) if self.options.hand_over else ""
        question = Question(facts, self.tools.host, CLASS.get(), self.options.settings_id, told)
        server, reply = await self._servers.ask(
            lambda url, until: (url, self._client.ask(url, question, until)), UNTIL.get()
        )
        return self._told(server, reply, facts)

    def _told(self, server: str, reply: Reply, facts: Message) -> Finding:
        action, truncated = _action(reply), facts.truncated
        fields: dict[str, Value] = {
            "action": action,
            "score": reply.score,
            "required": reply.required,
            "symbols": tuple(each.name for each in reply.symbols[:MOST]),
            "scores": tuple(f"{each.name}={each.score:g}" for each in reply.symbols[:MOST]),
            "options": tuple(f"{each.name}={option}" for each in reply.symbols for option in each.options)[:MOST],
            "groups": tuple(f"{name}={score:g}" for name, score in reply.groups[:MOST]),
            "message": reply.message or None,
            "subject": reply.subject or None,
            "skipped": reply.skipped or bool(truncated),
            "server": server,
        }
        problems = list(reply.problems)
        proposed = tuple(edits(reply, action, facts, self.tools.host, problems))
        return Finding(
            self.name,
            _result(reply, action, truncated),
            _reason(reply, action, truncated),
            fields,
            warning=f"{server}: {'; '.join(problems[:SHOWN])}" if problems else "",
            edits=proposed,
        )


def _action(reply: Reply) -> str:
    """What Rspamd would have its own milter do."""
    if reply.changes.no_action:
        return "no action"
    return reply.changes.instead or reply.action if reply.action == "reject" else reply.action


def _result(reply: Reply, action: str, truncated: str) -> Result:
    result = RESULTS.get(action, Result.POLICY)
    if result is Result.PASS and (reply.skipped or truncated):
        return Result.NEUTRAL
    return result


def _reason(reply: Reply, action: str, truncated: str) -> str:
    words = [action]
    if reply.score is not None:
        words.append(f"{reply.score:g}" + (f" of {reply.required:g}" if reply.required is not None else ""))
    heavy = [each for each in reply.symbols[:SHOWN] if each.score]
    if heavy:
        words.append(" ".join(f"{each.name} {each.score:g}" for each in heavy))
    if truncated:
        words.append(f"not all of it was seen: more than {truncated}")
    return ", ".join(words)
