"""Rewrite: what is changed in the content of a kept mail because rules ask for it: banners, attachments taken out?

Made where some rule asks for such a thing.  `see` works the change out once and says what is done or why not;
`planning.plan` puts it in, before signing.  A banner never breaks a signature that holds, or of which nobody knows
whether it does: the mail stays as it is.  Attachments are taken out whatever that breaks; where that cannot be done,
the mail is deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from elemta.check import Seen
from elemta.config.model import Settings
from elemta.config.problems import Problem
from elemta.facts import Message
from elemta.findings import Finding, Result
from elemta.rules.templates import compile_template
from elemta.verdict import Action, ActionKind, Verdict
from elemta_milter.contents.names import extensions
from elemta_milter.files import attachments
from elemta_milter.mime import Part, Tree, read_octets, tree_of
from elemta_milter.patterns import matcher
from elemta_milter.rewriting import Banner, Rewritten, Skipped, add_banners, replace_parts

NAME = "rewrite"
ASKED = (ActionKind.BANNER, ActionKind.REPLACE_ATTACHMENTS)
SHOWN = 5  # attachments named in the reason

Files = Sequence[tuple[tuple[str, ...], str]]
"""The names and the media type of each file that was found in an attachment, itself included."""

_SIGNATURES = (("dkim", "dkim-signature", "DKIM"), ("arc", "arc-message-signature", "ARC"))
_BROKEN = (Result.FAIL, Result.PERMERROR)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The part `rewrite` of a policy."""

    needs_body: bool = True

    def see(self, klass: str, message: Message, seen: Seen, verdict: Verdict) -> Finding:
        """Work out what is changed, and say so."""
        asked = [action for action in verdict.actions if action.kind in ASKED]
        if not asked:
            return Finding(NAME, Result.NONE, "no rule asks for it")
        if any(action.kind is ActionKind.REPLACE_BODY for action in verdict.actions):
            return Finding(NAME, Result.POLICY, "a rule replaces the whole body")
        safety = any(action.kind is ActionKind.REPLACE_ATTACHMENTS for action in asked)
        if message.truncated:
            return _stays(f"the mail is not known whole: more than {message.truncated}", must=safety)
        try:
            tree = tree_of(message)
        except OSError as error:
            return _stays(f"the mail cannot be read: {error}", must=safety)
        return _rewritten(asked, message, seen, tree)


def _stays(reason: str, *, must: bool) -> Finding:
    if must:
        return Finding(NAME, Result.PERMERROR, reason, detail=Rewritten(impossible=reason))
    return Finding(NAME, Result.POLICY, f"no banner: {reason}")


def _rewritten(asked: Sequence[Action], message: Message, seen: Seen, tree: Tree) -> Finding:
    said: list[str] = []
    result, change = Result.NONE, None
    notices = list(_notices(asked, tree, seen))
    if notices:
        change, result = replace_parts(tree, notices), Result.PASS
        said.append(f"taken out: {_listed([_shown(part) for part, _ in notices])}")
        said += [f"this breaks a signature: {holds}" for holds in _holding(message, seen)]
        tree = read_octets(change.octets(), change.header(message.headers))
    elif any(action.kind is ActionKind.REPLACE_ATTACHMENTS for action in asked):
        said.append("no attachment to take out")
    banners = [_banner(action) for action in asked if action.kind is ActionKind.BANNER]
    parts: tuple[str, ...] = ()
    if banners:
        holding = () if notices else _holding(message, seen)
        try:
            if holding:
                raise Skipped("; ".join(holding))  # noqa: TRY301 - one way to say why not
            made = add_banners(tree, banners)
        except Skipped as reason:
            said.append(f"no banner: {reason}")
            result = result if notices else Result.POLICY
        else:
            change = made.change if change is None else change.then(made.change)
            result, parts = Result.PASS, made.parts
            said.append(f"banner in {_parts(parts)}")
            said += [f"not in another: {left}" for left in made.left]
    names = tuple(_shown(part) for part, _ in notices)
    fields = {"removed": names, "banner": parts}
    return Finding(NAME, result, "; ".join(said), fields, detail=Rewritten(change))


def _parts(numbers: Sequence[str]) -> str:
    if numbers == ("new",):
        return "a new first part"
    return ("part " if len(numbers) == 1 else "parts ") + ", ".join(numbers)


def _banner(action: Action) -> Banner:
    html = dict(action.options).get("html", "")
    return Banner(action.value, html, "bottom" if action.name == "bottom" else "top")


# ── signatures ────────────────────────────────────────────────────────────────────────────────────────────


def _holding(message: Message, seen: Seen) -> tuple[str, ...]:
    """Which signatures over the body hold, or may hold, in words."""
    found = []
    for check, field, called in _SIGNATURES:
        if not message.header(field):
            continue
        finding = seen.get(check)
        if finding is None or not (finding.result in _BROKEN or finding.fields):
            found.append(f"it bears a signature ({called}), and no check {check} tells whether that holds")
        elif check == "dkim":
            found += _holding_dkim(finding)
        elif finding.result not in _BROKEN:
            found.append(f"its chain ({called}) holds" if finding.result is Result.PASS else "its chain may hold")
    return tuple(found)


def _holding_dkim(finding: Finding) -> Iterator[str]:
    """RFC 6376 section 6.1: each signature stands for itself."""
    results = finding.fields.get("results")
    if domains := finding.fields.get("domains"):
        yield f"the signature of {', '.join(domains) if isinstance(domains, tuple) else domains} holds"
    elif not isinstance(results, tuple) or any(each not in _BROKEN for each in results):
        yield f"a signature may hold: {finding.reason}"


# ── attachments ───────────────────────────────────────────────────────────────────────────────────────────


def _notices(asked: Sequence[Action], tree: Tree, seen: Seen) -> Iterator[tuple[Part, str]]:
    """The attachments to take out, and what is said in their place; the first rule that asks for one speaks."""
    wanted = [(_chosen(action), action) for action in asked if action.kind is ActionKind.REPLACE_ATTACHMENTS]
    within = _within(seen)
    for part in attachments(tree) if wanted else ():
        files = ((part.filenames, part.media_type), *within.get(part.number, ()))
        action = next((action for chosen, action in wanted if any(chosen(*file) for file in files)), None)
        if action is not None:
            yield part, _notice(action.value, _shown(part))


def _within(seen: Seen) -> Mapping[str, Files]:
    """What the check `attachments` found in each of them, by number of the part; nothing where it did not run."""
    finding = seen.get("attachments")
    return finding.detail if finding is not None and isinstance(finding.detail, dict) else {}


def _chosen(action: Action) -> Callable[[tuple[str, ...], str], bool]:
    """Tell of a file, by its names and its media type, whether the action means it."""
    words: dict[str, list[str]] = {"extension": [], "type": [], "name": []}
    for key, word in action.options:
        words.setdefault(key, []).append(word)
    wanted = frozenset(word.lower() for word in words["extension"])
    is_type, is_name = matcher(words["type"]), matcher(words["name"])

    def chosen(names: tuple[str, ...], media_type: str) -> bool:
        return not wanted.isdisjoint(extensions(names)) or is_type(media_type) or any(map(is_name, names))

    return chosen


def _notice(template: str, name: str) -> str:
    try:
        return compile_template(template)({"name": name})
    except (ValueError, KeyError):  # not one of a rule, which were tried when they were compiled
        return template


def _shown(part: Part) -> str:
    return part.filename or part.media_type


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# ── from the settings ─────────────────────────────────────────────────────────────────────────────────────


def part(settings: Settings) -> tuple[Rewriting | None, list[Problem]]:
    """Make it; None where no rule asks for such a change, and no check may."""
    by_rule = any(rule.banner or rule.replace_attachments for rule in settings.rules.message if rule.mode == "enforce")
    by_check = any((options or {}).get("edits") for options in settings.checks.values())
    return (Rewriting() if by_rule or by_check else None), []
