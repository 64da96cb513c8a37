from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.config.load import load
from elemta.config.show import hidden, json_text, values, yaml_text

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    [
        "yes",
        "08",
        "1:30",
        "0x1",
        "null",
        "~",
        "",
        " a",
        "a ",
        "a: b",
        "a #b",
        "- a",
        "${X}",
        "$${X}",
        "{",
        "<<",
        "\x7f",
        "\u2028",
        "\ufeff",
    ]
)


def escaped(value):
    """Values as a configuration writes them: `${` stands for itself as `$${`; keys are never filled in."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def effective(path, environment=None):
    loaded = load(path, environment or {})
    return hidden(loaded.settings.model_dump(mode="json", by_alias=True), loaded.source), loaded.source


@settings(deadline=None, max_examples=60)
@given(
    st.lists(TEXTS, max_size=5),
    st.dictionaries(TEXTS, TEXTS | st.integers(-(10**9), 10**9) | st.booleans(), max_size=4),
)
def test_what_is_shown_loads_to_the_same(tmp_path_factory, entries, facts):
    entries = [entry for entry in entries if not entry.startswith("file:")]
    facts = {key: value for key, value in facts.items() if not str(value).startswith("file:")}
    given = {**facts, "deep": {"any": [{"a": [1, "b"]}, {"c": {}}]}}
    path = tmp_path_factory.mktemp("show") / "elemta.yaml"
    data = {"host": "mx.test", "sets": {"a": entries}, "tests": [{"name": "t", "given": given, "expect": {}}]}
    path.write_text(yaml.safe_dump(escaped(data)))
    shown = effective(path)[0]
    path.write_text(yaml_text(shown))
    assert effective(path)[0] == shown
    assert yaml.safe_load(path.read_text())["sets"]["a"] == escaped(entries)
    assert shown["sets"]["a"] == entries
    assert shown["tests"][0]["given"] == given


@pytest.fixture
def path(tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "more.yaml").write_text("log: {level: debug}\n")
    path = tmp_path / "elemta.yaml"
    path.write_text("""\
host: mx.test
include: more.yaml
user: file:secret
sets:
  urls: ["redis://:hunter2@h/0", "http://example.org"]
checks:
  spf: {password: hunter2, api_token: hunter2, tokens: 5}
rules:
  message:
    - id: a
      when: {spf: fail}
""")
    return path


def test_secrets_are_masked(path):
    shown, _ = effective(path)
    assert "hunter2" not in json.dumps(shown)
    assert shown["user"] == "***"
    assert shown["sets"]["urls"] == ["redis://:***@h/0", "http://example.org"]
    assert shown["checks"]["spf"] == {"password": "***", "api_token": "***", "tokens": 5}


def test_origins_are_file_and_line_or_default(path, tmp_path):
    shown, source = effective(path)
    lines = {
        line.split(":")[0].strip(): line.partition("#")[2].strip() for line in yaml_text(shown, source).splitlines()
    }
    assert lines["host"] == f"{path}:1"
    assert lines["level"] == f"{tmp_path}/more.yaml:1"
    assert lines["workers"] == "default"
    assert lines["- id"] == f"{path}:10"
    rows = {row["path"]: row for row in json.loads(json_text(shown, source))}
    assert rows["rules.message[0].when.spf"] == {
        "path": "rules.message[0].when.spf",
        "value": "fail",
        "origin": f"{path}:11",
    }
    assert rows["milter.budget"] == {"path": "milter.budget", "value": "25s", "origin": "default"}


def test_each_value_is_told_by_itself_but_a_list_of_words_as_one():
    of = {"a": {}, "b": [1, {"c": 2}], "d": ["x", "y"]}
    assert list(values(of)) == [(("a",), {}), (("b", 0), 1), (("b", 1, "c"), 2), (("d",), ["x", "y"])]


def test_lists_of_all_kinds_of_things_are_written_as_they_are():
    of = {"a": [1, {"b": 2, "c": [{"d": {}}]}, ["x", [], ["y"]], [], "z"]}
    assert yaml.safe_load(yaml_text(of)) == of


def test_a_rule_shows_what_it_has(path):
    shown, _ = effective(path)
    assert shown["rules"]["message"] == [{"id": "a", "when": {"spf": "fail"}, "mode": "enforce", "percent": 100.0}]


def test_words_that_other_programs_misread_are_quoted(path):
    shown = yaml_text({"a": ["yes", "08", "1:30", "1e3", "5s", "x y", "true", "", "mx.test:25"]})
    assert shown == 'a: ["yes", "08", "1:30", "1e3", 5s, x y, "true", "", mx.test:25]'
