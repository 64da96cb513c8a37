"""Signing: which keys vouch for this mail (DKIM)?

A table made from `sign:` when the configuration is loaded.  An entry fits a mail by its class, its authors (all of
them), its envelope sender and its login; every entry that fits signs, each with all its keys.  What cannot be vouched
for is not signed: a From that can be read in two ways, a mail that passed a bound of the milter, an address that the
check `sender_login` says this login may not use.  `see` tells, `elemta_milter.vouching` does.

RFC 6376 sections 5.1, 5.4 and 5.5; RFC 8301; RFC 8463; RFC 5322 section 2.1.1 (long lines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elemta.check import Seen
from elemta.config.model import KeyFile, KeyRing, Settings, Sign
from elemta.config.problems import Path, Problem, either, suggest
from elemta.facts import Message
from elemta.findings import Finding, Result, Value
from elemta.verdict import Verdict
from elemta_milter import keyfiles
from elemta_milter.keyring import ring
from elemta_milter.long_lines import LONGEST_LINE, has_long_line, is_changed
from elemta_milter.mailauth.canonical import Canon
from elemta_milter.mailauth.fields import HeaderFields
from elemta_milter.mailauth.signing import OVERSIGNED, SIGNED, SigningError, SigningKey, sign
from elemta_milter.patterns import Matches, address_matcher, matcher

_LATER = "sent on by SMTP it is broken in two, and the signature with it"


@dataclass(frozen=True, slots=True)
class Signer:
    """One entry of the table.

    Attributes:
        keys: all that sign.
        classes: of mail.
        authors: whether it signs for an author; None: for those of its own domain.
        sender: whether it signs for an envelope sender; None: for all.
        logins: whether it signs for a login; None: for all, and for none.
        names: header fields to sign.
        oversigned: those listed once more than they occur.
        canon: of header and body.
        lifetime: seconds, None for ever.
        identity: i=, "" for none.
    """

    keys: tuple[SigningKey, ...]
    classes: frozenset[str]
    authors: Matches | None = None
    sender: Matches | None = None
    logins: Matches | None = None
    names: tuple[str, ...] = SIGNED
    oversigned: tuple[str, ...] = OVERSIGNED
    canon: tuple[Canon, Canon] = (Canon.RELAXED, Canon.RELAXED)
    lifetime: int | None = None
    identity: str = ""

    def fits(self, klass: str, message: Message) -> bool:
        """Whether it signs this mail, whose authors are beyond doubt."""
        envelope = message.envelope
        return (
            klass in self.classes
            and self._knows_authors(message)
            and (self.sender is None or self.sender(envelope.sender))
            and (self.logins is None or (envelope.client.login != "" and self.logins(envelope.client.login)))
        )

    def _knows_authors(self, message: Message) -> bool:
        if self.authors is None:
            return all(name == self.keys[0].domain for name in message.authors.domains)
        return all(self.authors(f"{box.local}@{box.domain}") for box in message.authors.mailboxes)

    def sign(self, fields: HeaderFields, key: SigningKey, body_hash: bytes, now: int) -> bytes:
        """Give the value of a DKIM-Signature.

        Raises:
            SigningError: this cannot be signed.
        """
        return sign(
            fields,
            key,
            body_hash=body_hash,
            now=now,
            names=self.names,
            oversigned=self.oversigned,
            header_canon=self.canon[0],
            body_canon=self.canon[1],
            lifetime=self.lifetime,
            identity=self.identity,
        )


@dataclass(frozen=True, slots=True)
class Signing:
    """The table."""

    signers: tuple[Signer, ...]
    needs_body: bool = True

    def choose(self, klass: str, message: Message, seen: Seen) -> tuple[Sequence[Signer], str]:
        """Give the entries that sign this mail; or none, and why, for people."""
        if not any(klass in signer.classes for signer in self.signers):
            return (), f"mail of class {klass} is not signed"
        if message.truncated:
            return (), f"the mail is not known whole: more than {message.truncated}"
        authors = message.authors
        if authors.trouble or not authors.domains:
            return (), authors.trouble or "there is no author"
        refused = _refused(message, seen)
        if refused:
            return (), refused
        fitting = [signer for signer in self.signers if signer.fits(klass, message)]
        return fitting, "" if fitting else f"no entry of sign: fits mail from {', '.join(authors.domains)}"

    def see(self, klass: str, message: Message, seen: Seen, verdict: Verdict) -> Finding:
        """Say who will sign."""
        fitting, reason = self.choose(klass, message, seen)
        if not fitting:
            return Finding("sign", Result.NONE, reason)
        keys = [key for signer in fitting for key in signer.keys]
        reason = "signed by " + ", ".join(f"{key.domain}/{key.selector}" for key in keys)
        long = has_long_line(message.body)
        if long:
            reason += f"; a line of the body is longer than {LONGEST_LINE} octets: "
            reason += "broken in two before signing" if is_changed(message.body) else _LATER
        fields: dict[str, Value] = {
            "domains": tuple(dict.fromkeys(key.domain for key in keys)),
            "selectors": tuple(key.selector for key in keys),
            "long_line": long,
        }
        return Finding("sign", Result.PASS, reason, fields)


def _refused(message: Message, seen: Seen) -> str:
    """Why the login may not use this sender or one of these authors; "" when it may, or nothing says so."""
    known = seen.get("sender_login")
    if known is None:
        return ""
    if known.result is Result.FAIL:
        return known.reason or "the login may not use this address"
    if callable(known.detail):
        for box in message.authors.mailboxes:
            if not known.detail(box.local, box.domain):
                return f"{message.envelope.client.login} may not use {box.local}@{box.domain}"
    return ""


# ── from the settings ─────────────────────────────────────────────────────────────────────────────────────


def part(settings: Settings) -> tuple[Signing | None, list[Problem]]:
    """Make the table; None where nothing is to be signed or nothing can be."""
    problems: list[Problem] = []
    signers = [_signer(settings, entry, ("sign", index), problems) for index, entry in enumerate(settings.sign)]
    made = tuple(signer for signer in signers if signer is not None)
    return Signing(made) if made else None, problems


def _signer(settings: Settings, entry: Sign, path: Path, problems: list[Problem]) -> Signer | None:
    before = len(problems)
    problems += unknown_classes(settings, entry.classes, (*path, "classes"))
    keys = [load_key(settings, entry.domain, key, place, problems) for key, place in _files(entry, path, problems)]
    if len(problems) > before:
        return None
    header, _, body = entry.canonicalization.partition("/")
    signer = Signer(
        keys=tuple(key for key in keys if key is not None),
        classes=frozenset(entry.classes),
        authors=address_matcher(entry.from_) if entry.from_ else None,
        sender=address_matcher(entry.sender) if entry.sender else None,
        logins=matcher(entry.logins) if entry.logins else None,
        names=entry.headers or SIGNED,
        oversigned=tuple(name for name in OVERSIGNED if name in entry.headers) if entry.headers else OVERSIGNED,
        canon=(Canon(header), Canon(body)),
        lifetime=None if entry.expire is None else int(entry.expire),
        identity=entry.identity,
    )
    try:  # a first signature: what is wrong with the rest shows here, and not in the first mail
        signer.sign(HeaderFields(((b"From", b" a@" + entry.domain.encode()),)), signer.keys[0], bytes(32), 0)
    except SigningError as error:
        problems.append(Problem((*path, "identity") if entry.identity else path, str(error)))
    return signer


def _files(entry: Sign, path: Path, problems: list[Problem]) -> list[tuple[KeyFile, Path]]:
    """The keys of an entry, each with its place: those it lists, or the active ones of its ring."""
    path = (*path, "keys")
    if not isinstance(entry.keys, KeyRing):
        return [(key, (*path, index)) for index, key in enumerate(entry.keys)]
    try:
        active = ring.active(entry.keys.directory, entry.domain)
    except ring.RingError as error:
        problems.append(Problem((*path, "directory"), str(error)))
        return []
    return [(KeyFile(selector=selector, file=file), path) for selector, file in active]


def load_key(settings: Settings, domain: str, key: KeyFile, path: Path, problems: list[Problem]) -> SigningKey | None:
    """Load one key, or add to the problems why it cannot be used."""
    try:
        return SigningKey(domain, key.selector, keyfiles.load(key.file, settings.user))
    except (keyfiles.KeyFileError, SigningError) as error:
        problems.append(Problem((*path, "file"), str(error)))
        return None


def unknown_classes(settings: Settings, names: Sequence[str], path: Path) -> list[Problem]:
    """A problem for each class that nothing defines."""
    known = sorted(settings.classes)
    return [
        Problem(path, f'there is no class "{name}"' + (suggest(name, known) or f"; there are {either(known)}"))
        for name in names
        if name not in settings.classes
    ]
