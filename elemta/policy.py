"""Policy: the configuration made ready to judge: checks in order, classes, rules; or every mistake in it.

A `Policy` is immutable but for the members of its named sets, which are exchanged as files and the state
store change.  It opens nothing and connects to nothing: that is the engine's part, in the worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from pathlib import Path as FilePath
from typing import Any, Literal

from elemta.check import Check, Options, Stage
from elemta.config.load import Loaded
from elemta.config.model import FileSet, Settings
from elemta.config.problems import Path, Problem, suggest, unknown
from elemta.config.types import network
from elemta.config.validate import read_options
from elemta.decision import StageName
from elemta.parts import Part, find_parts
from elemta.plans import CheckPlan, needed, weighing
from elemta.plugins import Plugin, PluginError, built_in, find_checks, find_plugins
from elemta.rules.catalogue import Catalogue, catalogue
from elemta.rules.compiler import Surroundings, compile_rules
from elemta.rules.conditions import Condition, Conditions
from elemta.rules.reach import unreachable_classes
from elemta.rules.ruleset import Ruleset, sources
from elemta.rules.sets import NamedSet, meant, members
from elemta.rules.trial import run_tests, wrong_tests
from elemta.rules.view import View
from elemta.verdict import Disposition

UNCLASSIFIED = "unclassified"  # the class of a mail for which no class holds


@dataclass(frozen=True)
class Policy:
    """What one configuration says.

    Attributes:
        settings: the settings themselves.
        fingerprint: the same for the same policy; decisions carry it.
        catalogue: every fact that rules may use.
        checks: the enabled checks, those that others want first.
        classes: (name, conditions) in order.
        rules: by stage.
        sets: the named sets.
        parts: what the daemons do to kept mail besides carrying out the verdict: "sign", "seal".
    """

    settings: Settings
    fingerprint: str
    catalogue: Catalogue
    checks: tuple[CheckPlan, ...]
    classes: tuple[tuple[str, tuple[Condition, ...]], ...]
    rules: Mapping[StageName, Ruleset]
    sets: Mapping[str, NamedSet]
    parts: Mapping[str, Part] = field(default_factory=dict)

    @classmethod
    def compile(cls, loaded: Loaded) -> Policy:
        """Make a loaded configuration ready.

        Raises:
            ConfigErrors: every mistake that only the engine's parts can see, each with its place.
        """
        compiler = _Compiler(loaded.settings)
        policy = compiler.policy()
        if compiler.problems:
            raise loaded.source.errors(compiler.problems)
        return policy

    def klass(self, view: View) -> str:
        """The name of the first class whose conditions hold."""
        for name, conditions in self.classes:
            for condition in conditions:
                if not condition.test(view):
                    break
            else:
                return name
        return UNCLASSIFIED

    def weighing(self, stage: StageName) -> tuple[CheckPlan, ...]:
        """The checks whose trouble weighs in at a stage."""
        return self.checks if stage == "message" else weighing(self.checks, self.rules[stage])

    def describe(self) -> dict[str, Any]:
        """The rules in words, for the journal: an old decision can be explained after the policy has changed."""
        return {
            "host": self.settings.host,
            "rules": {
                stage: [
                    {
                        "id": rule.id,
                        "when": list(rule.texts),
                        "then": rule.disposition.value if rule.final else "",
                        "mode": "shadow" if rule.shadow else "enforce",
                        "facts": list(rule.facts),
                    }
                    for rule in rules.rules
                ]
                for stage, rules in self.rules.items()
            },
        }

    def doubts(self) -> Iterator[Problem]:
        """What can be used, but is hardly meant so: a check that is only rehearsed, and yet decides."""
        asked = self.rules["message"].sources
        rules = [rule for stage in self.rules.values() for rule in stage.rules if not rule.shadow]
        in_force = needed(self.checks, sources(fact for rule in rules for fact in rule.facts))
        for plan in self.checks:
            classes = self._every_class() if plan.classes is None else plan.classes
            decides = any(plan.meaning_of_trouble(klass) is not Disposition.ACCEPT for klass in classes)
            if decides and plan.name in asked and plan.name not in in_force:
                text = "only rules in mode: shadow ask for it, but where it cannot answer, its trouble still decides"
                yield Problem(("checks", plan.name), f"{text}; write trouble: accept while you try it")

    def _every_class(self) -> Iterator[str]:
        """Every class that a mail may be of."""
        for name, conditions in self.classes:
            yield name
            if not conditions:
                return  # all that is left is of this one
        yield UNCLASSIFIED

    def run_tests(self) -> list[Problem]:
        """Run the tests inside the configuration; a problem for each that fails."""
        return run_tests(self, self.settings.tests)


class _Compiler:
    """Compiles settings into a policy and collects every mistake."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[Problem] = []
        self.plugins: Mapping[str, Plugin] = {}

    def policy(self) -> Policy:
        settings = self.settings
        kinds, enabled = self._kinds()
        sets = self._sets()
        facts = _of_classes(catalogue(enabled, frozenset(kinds)), (*settings.classes, UNCLASSIFIED))
        around = Surroundings(facts, sets, tuple(settings.classes), settings.host)
        classes = self._classes(facts, sets)
        recipient, problems = compile_rules(settings.rules.recipient, ("rules", "recipient"), Stage.ENVELOPE, around)
        message, more = compile_rules(settings.rules.message, ("rules", "message"), Stage.MESSAGE, around)
        self.problems += problems + more
        self._trusted(sets)
        self.problems += wrong_tests(settings, facts, UNCLASSIFIED)
        return Policy(
            settings=settings,
            fingerprint=blake2b(settings.model_dump_json().encode(), digest_size=6).hexdigest(),
            catalogue=facts,
            checks=self._plans(enabled),
            classes=classes,
            rules={"recipient": recipient, "message": message},
            sets=sets,
            parts=self._parts(),
        )

    def _kinds(self) -> tuple[dict[str, type[Check[Any]]], dict[str, type[Check[Any]]]]:
        """Every check there is, and those the settings enable."""
        try:
            kinds = find_checks()
        except PluginError as error:
            self.problems.append(Problem(("checks",), str(error)))
            return {}, {}
        own = built_in(kinds)
        wanted = [name for name in self.settings.checks if name not in own]
        self.plugins, problems = find_plugins(self.settings.plugins, wanted, own)
        self.problems += problems
        kinds |= {name: plugin.check for name, plugin in self.plugins.items()}
        told = {problem.path for problem in problems}
        enabled = {}
        for name in self.settings.checks:
            if name in own or name in self.plugins:
                enabled[name] = kinds[name]
            elif ("checks", name) not in told:
                self.problems.append(unknown(("checks", name), "check", name, kinds))
        return kinds, enabled

    def _parts(self) -> Mapping[str, Part]:
        try:
            parts, problems = find_parts(self.settings)
        except PluginError as error:
            self.problems.append(Problem((), str(error)))
            return {}
        self.problems += problems
        return parts

    def _plans(self, enabled: Mapping[str, type[Check[Any]]]) -> tuple[CheckPlan, ...]:
        options = {name: self._options(name, kind) for name, kind in enabled.items()}
        wants = {
            name: tuple(other for other in kind.waits_for(options[name]) if other in enabled)
            for name, kind in enabled.items()
        }
        try:
            order = tuple(TopologicalSorter(wants).static_order())
        except CycleError as error:
            self.problems.append(Problem(("checks",), f"checks wait for each other: {' after '.join(error.args[1])}"))
            return ()
        plans = []
        for name in order:
            kind, told = enabled[name], options[name]
            if told is None:
                continue
            for place, named in told.named_classes():
                self._known_classes(named, ("checks", name, *place))
            trouble = self._trouble(name, kind, told)
            classes = None if told.classes is None else frozenset(told.classes)
            plugin = self.plugins.get(name)
            plans.append(CheckPlan(name, kind, told, kind.stage(), wants[name], classes, trouble, plugin))
        return tuple(plans)

    def _options(self, name: str, kind: type[Check[Any]]) -> Options | None:
        options, problems = read_options(kind.Options, self.settings.checks[name], ("checks", name))
        self.problems += problems
        return options

    def _trouble(self, name: str, kind: type[Check[Any]], options: Options) -> dict[str, Disposition]:
        told = options.trouble
        if isinstance(told, dict):
            for klass in told:
                self._known_classes((klass,), ("checks", name, "trouble", klass), "key")
            return {"": Disposition(kind.trouble), **{klass: Disposition(word) for klass, word in told.items()}}
        return {"": Disposition(told or kind.trouble)}

    def _known_classes(self, names: Iterable[str], path: Path, on: Literal["key", "value"] = "value") -> None:
        for name in names:
            if name not in self.settings.classes:
                self.problems.append(unknown(path, "class", name, self.settings.classes, on))

    def _sets(self) -> dict[str, NamedSet]:
        sets = {}
        for name, model in self.settings.sets.items():
            path: FilePath | None = None
            named = NamedSet(name)
            try:
                if isinstance(model, tuple):
                    self._entries(model, name)
                    named.members = members(model)
                elif isinstance(model, FileSet):
                    path = FilePath(model.file)
                    named = NamedSet(name, path=path)
                    named.reread()
                else:
                    named.dynamic = True
            except OSError as error:
                self.problems.append(Problem(("sets", name, "file"), f"cannot read {path}: {error.strerror}"))
            except ValueError as error:
                if path is not None:
                    self.problems.append(Problem(("sets", name, "file"), str(error)))
            sets[name] = named
        return sets

    def _entries(self, entries: Iterable[str], name: str) -> None:
        """What is wrong with single entries of an inline set."""
        for index, entry in enumerate(entries):
            try:
                members((entry,))
                meant(entry)
            except ValueError as error:
                self.problems.append(Problem(("sets", name, index), str(error)))

    def _classes(self, facts: Catalogue, sets: Mapping[str, NamedSet]) -> tuple[tuple[str, tuple[Condition, ...]], ...]:
        conditions = Conditions(facts, sets, Stage.ENVELOPE)
        classes = []
        for name, when in self.settings.classes.items():
            path = ("classes", name)
            read = conditions.read(when, path)
            for fact in (fact for condition in read for fact in condition.facts):
                source = facts.find(fact).source
                if source not in ("client", "envelope") or fact.startswith(("recipient", "class")):
                    text = f'a class cannot ask for "{fact}": it is found at MAIL FROM, before that is known'
                    self.problems.append(Problem((*path, fact) if fact in when else path, text, "key"))
            classes.append((name, read))
        self.problems += conditions.problems + unreachable_classes(self.settings.classes, facts)
        return tuple(classes)

    def _trusted(self, sets: Mapping[str, NamedSet]) -> None:
        """Who may bring Authentication-Results in our name: named sets and networks."""
        for index, entry in enumerate(self.settings.milter.trusted):
            try:
                if entry not in sets:
                    network(entry)
            except ValueError as error:
                near = suggest(entry, sets)
                text = (
                    f'"{entry}" is neither a set nor a network{near}' if near else f"there is no such set, and {error}"
                )
                self.problems.append(Problem(("milter", "trusted", index), text))


def _of_classes(facts: Catalogue, classes: Iterable[str]) -> Catalogue:
    """`facts` where `class` is one of `classes`, so that another word is told as a mistake."""
    klass = replace(facts.find("class"), words=tuple(name.lower() for name in classes))
    return replace(facts, facts={**facts.facts, "class": klass})
