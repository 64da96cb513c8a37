"""Sense: do the settings, each right by itself, also fit together and this machine?

Looks at settings and at the files that sets name.  Knows no facts and no checks, and opens nothing for writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elemta.config.model import FileSet, Settings
from elemta.config.problems import Path, Problem, printable, quoted, suggest
from elemta.config.state_url import state_place
from elemta.config.types import Listen, duration_text
from elemta.config.words import unreadable

_NO_WORDS = frozenset({"class", "glob", "regex", "cidr", "fact"})  # beside these stand no words that a fact is equal to
_MILTER_CONTENT_TIMEOUT = 300.0  # postconf(5): the default of Postfix
_POLICY_SERVICE_TIMEOUT = 100.0  # postconf(5): smtpd_policy_service_timeout
_SLASHES = re.compile(r"/(.+)/([ims]*)")  # as others write a regular expression
_WORD = re.compile(r"\w")  # *** alone may well be a text


def mistakes(settings: Settings) -> Iterator[Problem]:
    """What makes these settings unusable."""
    taken: dict[Listen, str] = {}
    for name in ("milter", "policyd", "metrics"):
        listen = getattr(settings, name).listen
        if listen in taken:
            text = f"{listen} is where {taken[listen]} listens; write another address"
            yield Problem((name, "listen"), text)
        elif listen.path or listen.port:  # port 0: the system chooses a free one
            taken[listen] = name
    if settings.dns.timeout > settings.dns.budget:
        text = f"one query may not take longer than all ({duration_text(settings.dns.budget)}); write less"
        yield Problem(("dns", "timeout"), text)
    files: list[tuple[tuple[str, ...], str]] = [
        (("sets", name, "file"), each.file) for name, each in settings.sets.items() if isinstance(each, FileSet)
    ]
    files.append((("state",), state_place(settings.state).ca))
    for where, file in files:
        if file and (trouble := unreadable(file)):
            yield Problem(where, trouble)
    for path, names in (
        (("quarantine", "classes"), settings.quarantine.classes),
        (("reports", "classes"), (settings.reports.classes if settings.reports is not None else None) or ()),
    ):
        for name in names:
            if name not in settings.classes:
                yield Problem(path, f'there is no class "{name}"' + (suggest(name, settings.classes) or ""))


def doubts(settings: Settings) -> Iterator[Problem]:
    """What can be used, but is hardly meant so."""
    if "." not in settings.host:
        yield Problem(("host",), f'"{settings.host}" has no domain; other servers expect one, as in mx1.example.org')
    for name, postfix, limit in (
        ("milter", "milter_content_timeout", _MILTER_CONTENT_TIMEOUT),
        ("policyd", "smtpd_policy_service_timeout", _POLICY_SERVICE_TIMEOUT),
    ):
        if getattr(settings, name).budget >= limit:
            text = f"Postfix gives up after {duration_text(limit)} (its {postfix}, unless raised); write less"
            yield Problem((name, "budget"), text)
    missing = [name for name in ("spf", "dkim") if name not in settings.checks]
    if "dmarc" in settings.checks and missing:
        yield Problem(("checks", "dmarc"), f"authentic mail fails without {' and '.join(missing)}; add them to checks")
    if settings.reports is not None and "dmarc" not in settings.checks:
        yield Problem(("reports",), "nothing can be reported: checks has no dmarc; add it, with spf and dkim")
    if settings.reports is not None and not _signs(settings, settings.reports.from_.rpartition("@")[2]):
        text = "sign has no keys of this domain or one above it: reports go unsigned, and others may refuse them"
        yield Problem(("reports", "from"), text)
    yield from _patterns(settings)
    yield from _called_as_sets(settings)
    if settings.dns.budget >= settings.milter.budget:
        text = f"DNS may use up the whole time of a mail ({duration_text(settings.milter.budget)}); write less"
        yield Problem(("dns", "budget"), text)


def _patterns(settings: Settings) -> Iterator[Problem]:
    """Texts that look like patterns and are none: in sets, and compared with facts."""
    for name, entries in settings.sets.items():
        for index, entry in enumerate(entries if isinstance(entries, tuple) else ()):
            if "*" in entry.removeprefix("*.") or entry.startswith("@"):
                text = f"{quoted(entry)} is no pattern here and means itself only; write .DOMAIN, or glob in the rule"
                yield Problem(("sets", name, index), text)
    for path, text in _words(settings):
        listed = text.removeprefix("*.") if "in" in path[-2:-1] else text  # as in a set: every name below
        if regex := _SLASHES.fullmatch(text):
            flags = f"(?{regex[2]})" if regex[2] else ""
            instead = f"regex: {_in_yaml(flags + regex[1])}"
        elif "*" in listed and _WORD.search(text):
            instead = f"glob: {_in_yaml(text)}"
        else:
            continue
        yield Problem(
            path, f"{quoted(text)} is no pattern here and means itself only; for a pattern write {{{instead}}}"
        )


def _called_as_sets(settings: Settings) -> Iterator[Problem]:
    """Words in conditions that have the name of a set and are not taken for it."""
    for path, text in _words(settings):
        if text in settings.sets:
            yield Problem(path, f"this is the word {quoted(text)}; if you mean the set, write {{in: {text}}}")


def _words(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Texts that facts are compared with, in the conditions of classes and rules."""
    for klass, conditions in settings.classes.items():
        yield from _compared(conditions, ("classes", klass))
    for stage in ("recipient", "message"):
        for index, rule in enumerate(getattr(settings.rules, stage)):
            yield from _compared(rule.when, ("rules", stage, index, "when"))
            yield from _compared(rule.unless, ("rules", stage, index, "unless"))


def _compared(asked: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(asked, dict):
        for key, each in asked.items():
            if key not in _NO_WORDS and (key != "in" or isinstance(each, list)):
                yield from _compared(each, (*path, key))
    elif isinstance(asked, list):
        for index, each in enumerate(asked):
            yield from _compared(each, (*path, index))
    elif isinstance(asked, str):
        yield path, asked


def _in_yaml(text: str) -> str:
    return "'" + printable(text).replace("'", "''") + "'"


def _signs(settings: Settings, domain: str) -> bool:
    """Whether mail of this domain's addresses can be signed so that DMARC passes."""
    of = {entry.domain.lower() for entry in settings.sign}
    return any(domain == each or domain.endswith("." + each) for each in of)
