"""Vouching: which signatures and seals go on top of a mail that is edited like this?

The last step before the edits are sent.  What Postfix will deliver is worked out first, by the same edits in the same
order; lines that its SMTP client would break are broken before that (`long_lines.py`); then every key signs, and the
ARC set covers the signatures too.  What is not seen here: Postfix recodes 8-bit text for a server without 8BITMIME.

RFC 6376 section 5; RFC 8617 section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from elemta.decision import Decision
from elemta.facts import Body, BytesBody, Message
from elemta.findings import AuthResult
from elemta.parts import Part
from elemta.verdict import KEPT
from elemta_milter import edits
from elemta_milter.feeding import feed_now
from elemta_milter.long_lines import without_long_lines
from elemta_milter.mailauth import authres, sealing, signing
from elemta_milter.mailauth.canonical import BodyHasher, BodySpec, Canon
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.signing import SigningKey
from elemta_milter.sealing import Sealing
from elemta_milter.signing import Signer, Signing

Header = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Voucher:
    """What vouches: the parts "sign" and "seal" of the policy, where it has them.

    Attributes:
        host: our name, the authserv-id.
    """

    host: str
    signing: Signing | None = None
    sealing: Sealing | None = None

    @classmethod
    def of(cls, parts: Mapping[str, Part], host: str) -> Voucher | None:
        """Give the policy's; None where it neither signs nor seals."""
        table, seal = parts.get("sign"), parts.get("seal")
        signs = table if isinstance(table, Signing) else None
        seals = seal if isinstance(seal, Sealing) else None
        return cls(host, signs, seals) if signs or seals else None

    @property
    def keys(self) -> list[SigningKey]:
        """All keys that sign and seal."""
        keys = [key for signer in self.signing.signers for key in signer.keys] if self.signing else []
        return [*keys, self.sealing.key] if self.sealing else keys

    def vouch(self, decision: Decision, message: Message, changes: Sequence[edits.Edit]) -> Sequence[edits.Edit]:
        """Give `changes` and, after them, the fields to put on top.

        Raises:
            SigningError: this mail cannot be signed; it must not go on.
            OSError: a spooled body cannot be read.
        """
        if decision.verdict.disposition not in KEPT:
            return changes
        seen = {finding.check: finding for finding in decision.findings}
        signers = self.signing.choose(decision.klass, message, seen)[0] if self.signing else ()
        asked = decision.verdict.actions
        chain = self.sealing.choose(decision.klass, message, seen, asked)[0] if self.sealing else None
        if not signers and chain is None:
            return changes
        header, body = delivered(message, changes)
        if signers:
            names = _names(signers, sealed=chain is not None)
            before, changes = changes, without_long_lines(header, body, changes, names)
            if changes is not before:
                header, body = delivered(message, changes)
        hasher = BodyHasher()
        for signer in signers:
            hasher.want(BodySpec(signer.canon[1]))
        if chain is not None:
            hasher.want(_RELAXED)
        feed_now(hasher, body)
        now = int(decision.at)
        fields = HeaderFields(header)
        new: Header = []
        for signer in signers:
            body_hash = _digest(hasher, BodySpec(signer.canon[1]))
            new += [(signing.FIELD, signer.sign(fields, key, body_hash, now)) for key in signer.keys]
        if chain is not None and self.sealing is not None:
            own = [result for finding in decision.findings for result in finding.authres]
            told = list(self._told(header, _value(authres.render(self.host, own))))
            settled = {each.method for each in told} & _ON_ARRIVAL
            results = told + [each for each in own if each.method not in settled]
            made = sealing.seal(
                HeaderFields([*new, *header]),
                self.sealing.key,
                sealing.as_told(chain, told),
                results=authres.render(self.host, results).replace("\n", "\r\n"),
                body_hash=_digest(hasher, _RELAXED),
                now=now,
            )
            seal = (sealing.SEAL_NAME, made.seal)
            new = [seal, (sealing.MESSAGE_NAME, made.message_signature), (sealing.RESULTS_NAME, made.results), *new]
        return (*changes, *(_insert(name, value) for name, value in reversed(new)))

    def _told(self, header: Header, own: bytes) -> Iterator[AuthResult]:
        """What others of our name found, such as the host that took the mail in (RFC 8617 section 4.1.1)."""
        for name, value in header:
            if value == own or not authres.is_authentication_results(name):
                continue
            field = authres.parse(value)
            if authres.is_ours(field, self.host):  # in disguise it may be a stranger's, whom that host let through
                for each in field.results:
                    yield AuthResult(each.method, each.result, each.reason, each.properties)


_RELAXED = BodySpec(Canon.RELAXED)
_ON_ARRIVAL = frozenset({"arc", "spf", "iprev", "dmarc"})
"""Methods on which the first of us has the only word: our own host is the client that all others see."""


def _names(signers: Sequence[Signer], *, sealed: bool) -> set[bytes]:
    """Names of the fields that signatures cover, and the seal, lower case."""
    names = {name.lower().encode() for signer in signers for name in ("from", *signer.names)}
    return names.union(name.encode() for name in sealing.SEALED) if sealed else names


def _digest(hasher: BodyHasher, spec: BodySpec) -> bytes:
    digest = hasher.digest(spec)
    assert digest is not None  # noqa: S101 - it was asked for, and has no length that could be too long
    return digest


def _insert(name: bytes, value: bytes) -> edits.InsertHeader:
    text = value.replace(b"\r\n", b"\n").decode().removeprefix(" ")
    return edits.InsertHeader(0, name.decode(), text)


def delivered(message: Message, changes: Sequence[edits.Edit]) -> tuple[Header, Body]:
    """Give the header and the body as they will be delivered, Postfix's own Received on top left out."""
    header: Header = list(message.headers)
    body = message.body
    for change in changes:
        match change:
            case edits.AddHeader(name, value):
                header.append((name.encode(), _value(value)))
            case edits.InsertHeader(index, name, value):
                header.insert(index, (name.encode(), _value(value)))
            case edits.ChangeHeader(name, nth, value):
                header[_place(header, name, nth)] = (name.encode(), _value(value))
            case edits.DeleteHeader(name, nth):
                del header[_place(header, name, nth)]
            case edits.ReplaceBody(data):
                body = BytesBody(data)
            case _:
                pass  # the envelope
    return header, body


def _value(text: str) -> bytes:
    return b" " + text.encode().replace(b"\n", b"\r\n")


def _place(header: Header, name: str, nth: int) -> int:
    """Where the `nth` field of this name (from 1) stands."""
    wanted = name.lower().encode("utf-8", "surrogateescape")
    places = (place for place, (found, _) in enumerate(header) if found.lower() == wanted)
    for count, place in enumerate(places, 1):
        if count == nth:
            return place
    raise edits.Unlawful(f"there is no {name} number {nth}")
