from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from elemta.check import Options
from elemta.cli import _reference, _schema, main
from elemta.cli._models import meaning, models
from elemta.config.load import loaded_and
from elemta.config.model import Settings
from elemta.config.problems import ConfigErrors
from elemta.plugins import find_checks
from elemta.policy import Policy
from elemta.rules.view import MAIL_FACTS

ROOT = Path(__file__).parents[3]
GOOD = """\
host: mx.test
milter: {listen: "inet:127.0.0.1:0", budget: 20s}
sets:
  local_domains: [example.org]
  frozen: {dynamic: true}
classes:
  submission: {login: {exists: true}}
  inbound: {}
checks:
  spf:
  dnsbl: {lists: [{zone: zen.test}], trouble: {inbound: accept}}
rules:
  recipient:
    - id: frozen
      when: {login: {in: frozen}}
      then: reject
      reply: "550 5.7.1 no. Reference {id}"
  message:
    - id: spoofed
      class: inbound
      when:
        header_from.domain: {in: local_domains}
        spf: {not: pass}
        any: [{helo: x}, {size: {ge: 25M, lt: 30000000}}]
      unless: {client.address: {cidr: 10.0.0.0/8}, header.x-spam: [a, {glob: "*b"}]}
      then: reject
    - id: tag
      mode: shadow
      percent: 25
      when: {sender.domain: {fact: header_from.domain}}
      add_header: {X-Spam-Flag: "YES"}
tests:
  - name: own domain
    given: {class: inbound, spf: fail, header_from.domain: example.org, helo: x}
    expect: {rule: spoofed, then: reject}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "elemta.yaml"
    path.write_text(GOOD)
    return path


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_right_file(path, capsys):
    assert main(["config", "check", str(path)]) == os.EX_OK
    assert capsys.readouterr() == (f"{path}: ok (rules: 3, checks: 2, tests passed: 1)\n", "")


def test_the_file_may_come_from_option_or_environment(path, capsys, monkeypatch):
    assert main(["config", "check", "--config", str(path)]) == os.EX_OK
    monkeypatch.setenv("ELEMTA_CONFIG", str(path))
    assert main(["config", "check"]) == os.EX_OK
    assert capsys.readouterr().out.count(": ok ") == 2


def test_a_wrong_file(path, capsys):
    path.write_text(GOOD.replace("budget: 20s", "budget: 20").replace("login:", "logn:"))
    assert main(["config", "check", str(path)]) == os.EX_CONFIG
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [
        f'{path}:2:46: milter.budget: "20" is not a duration; write the unit too, such as 20s or 20m',
        f'{path}:7:16: classes.submission: unknown fact "logn"; did you mean "login"?',
        f'{path}:15:14: rules.recipient[0].when: unknown fact "logn"; did you mean "login"?',
    ]


def test_a_missing_file(tmp_path, capsys):
    assert main(["config", "check", str(tmp_path / "none.yaml")]) == os.EX_NOINPUT
    assert capsys.readouterr().err == f"{tmp_path}/none.yaml: this file cannot be read: no such file or directory\n"


def test_a_failing_test_inside_the_file(path, capsys):
    path.write_text(GOOD.replace("expect: {rule: spoofed, then: reject}", "expect: {then: accept}"))
    assert main(["config", "check", str(path)]) == os.EX_CONFIG
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f'{path}:33:5: tests[0]: test "own domain" failed: expected then: accept, got reject')


def test_a_test_that_fails_since_its_rule_is_in_shadow_says_so(path, capsys):
    shadow = GOOD.replace("- id: spoofed", "- mode: shadow\n      id: spoofed")
    path.write_text(shadow)
    assert main(["config", "check", str(path)]) == os.EX_CONFIG
    error = capsys.readouterr().err
    assert 'expected then: reject, got accept; rule "spoofed" matched in shadow, without effect' in error
    assert "reads the others" not in error
    path.write_text(shadow.replace("expect: {rule: spoofed, then: reject}", "expect: {rule: spoofed}"))
    assert main(["config", "check", str(path)]) == os.EX_OK


def test_a_failing_test_tells_which_rules_were_read(path, capsys):
    path.write_text(GOOD + "  - {name: late, given: {login: x}, expect: {then: reject}}\n")
    assert main(["config", "check", str(path)]) == os.EX_CONFIG
    assert "got accept; rules.message were read; `stage: recipient` reads the others" in capsys.readouterr().err


def test_a_test_of_a_file_without_message_rules_reads_those_that_there_are(path, capsys):
    path.write_text("""host: mx.test
rules:
  recipient: [{id: no, when: {sender.domain: bad.test}, then: reject}]
tests: [{name: friend, given: {sender.domain: bad.test}, expect: {then: accept}}]
""")
    assert main(["config", "check", str(path)]) == os.EX_CONFIG
    assert 'test "friend" failed: expected then: accept, got reject' in capsys.readouterr().err


def test_warnings(path, capsys):
    path.write_text(GOOD.replace("mx.test", "mx", 1))
    assert main(["config", "check", str(path)]) == os.EX_OK
    assert capsys.readouterr().err.startswith(f'warning: {path}:1:7: host: "mx" has no domain')


@pytest.mark.parametrize(
    ("trouble", "modes", "warned"),
    [
        ("", ["shadow"], True),
        ("trouble: {inbound: quarantine}", ["shadow", "shadow"], True),
        ("trouble: accept", ["shadow"], False),
        ("", ["shadow", "enforce"], False),
        ("", ["off"], False),
        ("", [], False),
    ],
)
def test_a_check_that_is_only_rehearsed_may_yet_decide(path, capsys, trouble, modes, warned):
    rules = "".join(
        f"    - {{id: r{number}, mode: {mode}, when: {{clamav: fail}}, then: reject}}\n"
        for number, mode in enumerate(modes)
    )
    checks = f'checks:\n  clamav: {{socket: "unix:/run/clamd", {trouble}}}\nclasses: {{inbound: {{login: none}}}}\n'
    path.write_text(f"host: mx.test\n{checks}" + (f"rules:\n  message:\n{rules}" if rules else ""))
    assert main(["config", "check", str(path)]) == os.EX_OK
    error = capsys.readouterr().err
    assert (f"warning: {path}:3:11: checks.clamav: only rules in mode: shadow ask for it" in error) is warned
    assert bool(error) is warned


@pytest.mark.parametrize(
    ("classes", "options", "warned"),
    [
        ("{users: {login: {exists: true}}, rest: {}}", "trouble: {users: accept, rest: accept}", False),
        ("{users: {login: {exists: true}}, rest: {}}", "trouble: {users: accept}", True),
        ("{users: {login: {exists: true}}}", "trouble: {users: accept}", True),  # there is mail of no class
        ("{users: {login: {exists: true}}}", "classes: [users], trouble: {users: accept}", False),
    ],
)
def test_trouble_that_accepts_in_every_class_of_a_check_decides_nothing(path, capsys, classes, options, warned):
    path.write_text(f"""host: mx.test
classes: {classes}
checks: {{clamav: {{socket: "unix:/run/clamd", {options}}}}}
rules: {{message: [{{id: virus, mode: shadow, when: {{clamav: fail}}, then: reject}}]}}
""")
    assert main(["config", "check", str(path)]) == os.EX_OK
    assert ("its trouble still decides" in capsys.readouterr().err) is warned


def test_a_check_is_not_only_rehearsed_that_a_rule_at_rcpt_or_another_check_uses(path, capsys):
    path.write_text("""host: mx.test
checks: {dnsbl: {trouble: defer, lists: [{zone: bl.test}]}, spf: {trouble: defer}, dkim: {}, dmarc: {}}
rules:
  recipient: [{id: listed, when: {dnsbl: fail}, then: reject}]
  message:
    - {id: tried, mode: shadow, when: {dnsbl: fail}, then: quarantine}
    - {id: tried-too, mode: shadow, when: {spf: fail}, then: reject}
    - {id: owner, when: {dmarc: fail}, then: reject}
""")
    assert main(["config", "check", str(path)]) == os.EX_OK
    assert capsys.readouterr().err == ""


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_show_is_a_configuration_with_the_same_meaning(path, capsys):
    assert main(["config", "show", str(path)]) == os.EX_OK
    shown = capsys.readouterr().out
    again = path.with_name("again.yaml")
    again.write_text(shown)
    assert main(["config", "show", str(again)]) == os.EX_OK
    assert capsys.readouterr().out == shown
    before, after = (loaded_and(Policy.compile, file) for file in (path, again))
    assert before.settings.rules == after.settings.rules
    assert before.checks == after.checks


def test_show_fills_in_what_checks_default_to(path, capsys):
    assert main(["config", "show", "--json", str(path)]) == os.EX_OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["checks"]["spf"]["explanation"] is True
    assert shown["checks"]["dnsbl"]["lists"][0] == {"zone": "zen.test", "of": "client", "weight": 1.0, "replies": {}}
    assert (shown["milter"]["budget"], shown["dns"]["timeout"]) == ("20s", "2s")


def test_show_origin(path, capsys):
    assert main(["config", "show", "--origin", str(path)]) == os.EX_OK
    lines = [line.split("#") for line in capsys.readouterr().out.splitlines()]
    told = {head.strip(): rest[0].strip() for head, *rest in lines if rest}
    assert told["budget: 20s"] == f"{path}:2"
    assert told["explanation: true"] == "default"


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────


def test_facts_lists_all_that_a_rule_may_use(capsys):
    assert main(["config", "facts", "--json"]) == os.EX_OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    fields = {f"{name}.{field}" for name, check in find_checks().items() for field in check.fields}
    assert rows.keys() == {fact.name for fact in MAIL_FACTS} | find_checks().keys() | fields
    assert rows["size"]["type"] == "number, octets"
    assert (rows["spf"]["known"], rows["spf"]["from"]) == ("envelope", "spf")
    assert rows["client.address"]["known"] == "client"
    assert all(row["meaning"] for row in rows.values())


def test_facts_for_people(capsys):
    assert main(["config", "facts"]) == os.EX_OK
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "type", "known", "from", "meaning"]
    assert len(lines) > 30


# ── schema ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def validator():
    schema = _schema.schema(find_checks())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_shipped_schema_is_the_generated_one():
    shipped = (ROOT / "elemta" / "config" / "schema.json").read_text()
    assert json.loads(shipped) == _schema.schema(find_checks()), (
        "elemta config schema --output elemta/config/schema.json"
    )


def test_the_schema_takes_what_the_loader_takes(validator):
    validator.validate(yaml.safe_load(GOOD))
    validator.validate({"host": "mx.test"})
    validator.validate({"host": "mx.test", "include": "conf.d/*.yaml", "milter": {"workers": "${WORKERS}"}})


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "host: 5",
        "{host: mx.test, hots: x}",
        "{host: mx.test, dns: {cach: 5}}",
        "{host: mx.test, dns: {timeout: 5}}",
        "{host: mx.test, dns: {timeout: soon}}",
        "{host: mx.test, milter: {workers: 0}}",
        "{host: mx.test, milter: {workers: many}}",
        "{host: mx.test, checks: {spff: }}",
        "{host: mx.test, checks: {spf: {timeot: 5s}}}",
        "{host: mx.test, checks: {dnsbl: {lists: [{zone: x, wieght: 5}]}}}",
        "{host: mx.test, checks: {spf: {trouble: acept}}}",
        "{host: mx.test, sets: {a: {fil: x}}}",
        "{host: mx.test, sets: {a b: [x]}}",
        "{host: mx.test, classes: {a: {logn: x}}}",
        "{host: mx.test, rules: {message: [{when: {spf: pass}}]}}",
        "{host: mx.test, rules: {message: [{id: a, when: {dmark: pass}}]}}",
        "{host: mx.test, rules: {message: [{id: a, when: {spf: passed}}]}}",
        "{host: mx.test, rules: {message: [{id: a, when: {spf: {nto: pass}}}]}}",
        "{host: mx.test, rules: {message: [{id: a, when: {any: {spf: pass}}}]}}",
        "{host: mx.test, rules: {message: [{id: a, then: acept}]}}",
        "{host: mx.test, tests: [{name: a, given: {dmark: x}, expect: {}}]}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text, validator, tmp_path):
    assert list(validator.iter_errors(yaml.safe_load(text)))
    path = tmp_path / "elemta.yaml"
    path.write_text(text)
    with pytest.raises(ConfigErrors):
        loaded_and(Policy.compile, path)


def test_output_goes_to_a_file(tmp_path, capsys):
    assert main(["config", "schema", "--output", str(tmp_path / "schema.json")]) == os.EX_OK
    assert main(["config", "reference", "--output", str(tmp_path / "reference.md")]) == os.EX_OK
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "schema.json").read_text())["$schema"]
    assert (tmp_path / "reference.md").read_text().startswith("# Configuration reference")


def test_output_that_cannot_be_written(tmp_path, capsys):
    assert main(["config", "schema", "--output", str(tmp_path / "none" / "x")]) == os.EX_CANTCREAT
    assert capsys.readouterr().err.startswith("elemta config: ")


# ── reference ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reference_is_what_the_code_says():
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == _reference.reference(find_checks()), "elemta config reference --output docs/configuration.md"


def test_every_model_of_the_settings_is_in_the_reference():
    assert {kind for _, kind in _reference._MODELS} == set(models(Settings))


def test_every_key_says_what_it_means():
    kinds = [
        *models(Settings),
        *models(Options),
        *(kind for check in find_checks().values() for kind in models(check.Options)),
    ]
    silent = {
        f"{kind.__name__}.{name}" for kind in kinds for name, field in kind.model_fields.items() if not meaning(field)
    }
    assert not silent


@pytest.mark.parametrize("words", [["init", "-"], ["show", "{}"], ["facts", "{}"], ["schema"], ["reference"]])
def test_a_terminal_that_lacks_our_signs_sees_them_escaped(tmp_path, words):
    path = tmp_path / "elemta.yaml"
    path.write_text('host: mx.test\nreports: {from: a@b.test, organization: "Grüße…"}\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from elemta.cli import main; sys.exit(main())", "config"]
        + [word.format(path) for word in words],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        check=True,
    )
    assert b"\\u2" in done.stdout if "facts" not in words else b"subject" in done.stdout
