from __future__ import annotations

import os
from pathlib import Path

import pytest

from elemta.config.load import load, loaded_and
from elemta.config.problems import ConfigErrors, Origin, Problem
from elemta.config.types import Listen
from elemta.policy import Policy


@pytest.fixture
def write(tmp_path):
    def write(text, name="elemta.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def complaints(path, environment=None):
    with pytest.raises(ConfigErrors) as errors:
        load(path, environment or {})
    return str(errors.value)


def test_a_host_is_enough(write):
    settings = load(write("host: mx.test")).settings
    assert settings.host == "mx.test"
    assert settings.milter.listen == Listen(path="/var/spool/postfix/elemta/milter.sock")
    assert (settings.milter.budget, settings.policyd.idle, settings.journal.keep) == (25.0, 1000.0, 30 * 86400.0)
    assert settings.classes == {"submission": {"login": {"exists": True}}, "inbound": {}}
    assert settings.rules.message == ()


def test_the_configuration_file_is_missing(tmp_path):
    with pytest.raises(ConfigErrors, match="cannot be read: no such file or directory") as errors:
        load(tmp_path / "none.yaml")
    assert errors.value.status == os.EX_NOINPUT


def test_the_configuration_file_is_a_directory(tmp_path):
    with pytest.raises(ConfigErrors, match="is a directory") as errors:
        load(tmp_path)
    assert errors.value.status == os.EX_NOINPUT


def test_byte_order_mark(write):
    assert load(write("\ufeffhost: mx.test")).settings.host == "mx.test"


def test_only_true_and_false_are_booleans(write):
    text = """
        host: mx.test
        tests:
        - name: t
          expect: {}
          given: {a: true, b: false, c: yes, d: off, e: True, f: null, g: ~, h: , i: Null, j: "true"}
    """
    given = load(write(text)).settings.tests[0].given
    assert given == {
        "a": True, "b": False, "c": "yes", "d": "off", "e": "True", "f": None, "g": None, "h": None, "i": "Null",
        "j": "true",
    }  # fmt: skip


def test_only_plain_decimals_are_numbers(write):
    text = """
        host: mx.test
        tests:
        - name: t
          expect: {}
          given: {a: 8, b: -8, c: 0.5, d: 08, e: 0x8, f: 1_0, g: 1:30, h: 2026-01-31,
                  i: 1e3, j: .inf, k: "8", l: 1.2.3.4}
    """
    given = load(write(text)).settings.tests[0].given
    assert given == {
        "a": 8, "b": -8, "c": 0.5, "d": "08", "e": "0x8", "f": "1_0", "g": "1:30", "h": "2026-01-31", "i": "1e3",
        "j": ".inf", "k": "8", "l": "1.2.3.4",
    }  # fmt: skip


def test_keys_are_text(write):
    classes = load(write("host: mx.test\nclasses:\n  on: {}\n  null: {}\n  true: {5: 6}\n")).settings.classes
    assert classes == {"on": {}, "null": {}, "true": {"5": 6}}


def test_anchors_and_merge_keys(write):
    text = """
        host: mx.test
        milter: &daemon {workers: 3, group: mail}
        policyd:
          <<: *daemon
          workers: 4
    """
    loaded = load(write(text))
    assert (loaded.settings.policyd.workers, loaded.settings.policyd.group) == (4, "mail")
    assert loaded.source.locate(("policyd", "workers")).line == 6
    assert loaded.source.locate(("policyd", "group")).line == 3  # where it is written


def test_of_several_merged_mappings_the_first_wins(write):
    text = "host: mx.test\nmilter: &a {workers: 3}\npolicyd:\n  <<: [*a, {workers: 4, group: mail}]\n"
    policyd = load(write(text)).settings.policyd
    assert (policyd.workers, policyd.group) == (3, "mail")


def test_host_without_domain_and_slow_budgets_are_doubted(write):
    text = "host: mx\nmilter: {budget: 5m}\npolicyd: {budget: 100s}\ndns: {budget: 6m}\n"
    warnings = load(write(text)).warnings
    assert [(each.path, each.origin.line) for each in warnings] == [
        (("host",), 1), (("milter", "budget"), 2), (("policyd", "budget"), 3), (("dns", "budget"), 4),
    ]  # fmt: skip
    assert not load(write("host: mx.test\nmilter: {budget: 299s}\n")).warnings


@pytest.mark.parametrize(
    ("checks", "lacks"),
    [("dmarc: ", "spf and dkim"), ("spf: , dmarc: ", "dkim"), ("spf: , dkim: , dmarc: ", ""), ("spf: ", "")],
)
def test_dmarc_without_what_it_weighs_is_warned_of(write, checks, lacks):
    warnings = load(write(f"host: mx.test\nchecks: {{{checks}}}\n")).warnings
    told = [f"authentic mail fails without {lacks}; add them to checks"] if lacks else []
    assert [(each.path, each.message) for each in warnings] == [(("checks", "dmarc"), text) for text in told]


def test_a_pattern_in_a_set_is_doubted(write):
    text = (
        "host: mx.test\nsets:\n  a: [.a.test, '*.b.test', '*@c.test', d@e.test]\n  b: ['@f.test', 'owner-*@g.test']\n"
    )
    warnings = load(write(text)).warnings
    assert [each.path for each in warnings] == [("sets", "a", 2), ("sets", "b", 0), ("sets", "b", 1)]
    assert 'elemta.yaml:3:28: sets.a[2]: "*@c.test" is no pattern here and means itself only' in str(warnings[0])


def test_a_word_that_is_called_as_a_set_is_doubted(write):
    text = """
        host: mx.test
        sets: {ours: [a.test], inbound: [b.test]}
        classes: {own: {sender.domain: ours}, inbound: {}}
        rules:
          recipient: [{id: a, when: {sender.domain: {in: ours}, class: inbound}, then: accept}]
          message:
            - {id: b, when: {any: [{sender: {not: [x, ours]}}]}, unless: {helo: {in: [ours]}}, then: accept}
            - {id: c, when: {helo: {glob: ours}, login: Ours}, then: accept}
    """
    warnings = load(write(text)).warnings
    assert [each.path for each in warnings] == [
        ("classes", "own", "sender.domain"),
        ("rules", "message", 0, "when", "any", 0, "sender", "not", 1),
        ("rules", "message", 0, "unless", "helo", "in", 0),
    ]
    told = 'classes.own.sender.domain: this is the word "ours"; if you mean the set, write {in: ours}'
    assert str(warnings[0]).endswith(told)


@pytest.mark.parametrize(
    ("when", "place", "instead"),
    [
        ('subject.text: "*invoice*"', ("subject.text",), "{glob: '*invoice*'}"),
        ("client.name: [a.test, 'mx*.b.test']", ("client.name", 1), "{glob: 'mx*.b.test'}"),
        ("subject: {not: {eq: 'Re: *'}}", ("subject", "not", "eq"), "{glob: 'Re: *'}"),
        ("any: [{helo: {in: ['mail*.test']}}]", ("any", 0, "helo", "in", 0), "{glob: 'mail*.test'}"),
        ("subject: /viagra/", ("subject",), "{regex: 'viagra'}"),
        ("subject: /a.c/i", ("subject",), "{regex: '(?i)a.c'}"),
        ("subject: '/it''s/i'", ("subject",), "{regex: '(?i)it''s'}"),
        ('header.x-spam-level: "*****"', (), ""),
        ("sender.domain: {in: ['*.b.test', .c.test]}", (), ""),
        ("header.path: /usr/lib", (), ""),
        ("client.name: {glob: ['mx*.test']}, subject: {regex: 'a.*b'}, size: {gt: 5}", (), ""),
    ],
)
def test_a_pattern_where_a_text_is_only_equal_is_doubted(write, when, place, instead):
    rule = f"{{id: x, when: {{{when}}}, unless: {{{when}}}}}"
    warnings = load(write(f"host: mx.test\nclasses: {{c: {{{when}}}}}\nrules: {{message: [{rule}]}}\n")).warnings
    wheres = [("classes", "c"), ("rules", "message", 0, "when"), ("rules", "message", 0, "unless")]
    assert [each.path for each in warnings] == ([(*where, *place) for where in wheres] if place else [])
    assert all(each.message.endswith(f"for a pattern write {instead}") for each in warnings)


@pytest.mark.parametrize(
    ("sign", "warned"),
    [
        ("", True),
        ("example.org", False),
        ("mail.example.org", False),
        ("ample.org", True),
        ("a.mail.example.org", True),
    ],
)
def test_reports_that_go_unsigned_are_warned_of(write, sign, warned):
    text = "host: mx.test\nchecks: {spf: , dkim: , dmarc: }\nreports: {from: dmarc@Mail.example.org}\n"
    text += f"sign: [{{domain: {sign}, keys: [{{selector: r, file: r.pem}}]}}]\n" if sign else ""
    warnings = load(write(text)).warnings
    assert [(each.path, each.origin.line) for each in warnings] == ([(("reports", "from"), 3)] if warned else [])


def test_a_merge_key_in_quotes_is_a_key(write):
    text = 'host: mx.test\ntests: [{name: t, expect: {}, given: {"<<": {a: b}, c: d}}]\n'
    assert load(write(text)).settings.tests[0].given == {"<<": {"a": "b"}, "c": "d"}


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────


def test_later_stages_report_by_path(write):
    path = write("host: mx.test\nrules:\n  message:\n  - id: a\n    when: {dmark: fail}\n")
    source = load(path).source
    problem = Problem(("rules", "message", 0, "when", "dmark"), 'unknown fact "dmark"', "key")
    assert str(source.errors([problem])) == f'{path}:5:12: rules.message[0].when: unknown fact "dmark"'
    assert source.locate(("rules", "message", 0, "when", "dmark")) == Origin(path, 5, 19)
    assert source.locate(("rules", "message", 0, "when", "spf")) == Origin(path, 5, 11)  # the longest part there is
    assert source.locate(("rules", "message", 7)) == Origin(path, 4, 3)
    assert source.locate(()) == Origin(path, 1, 1)
    assert source.find(("milter", "workers")) is None


def test_problems_come_in_the_order_of_lines_and_once(write):
    source = load(write("host: mx.test\nuser: me\n")).source
    late, early = Problem(("user",), "late"), Problem(("host",), "early")
    assert [each.message for each in source.errors([late, early, late]).problems] == ["early", "late"]


def test_many_problems_are_counted(write):
    entries = ", ".join(str(number) for number in range(150))
    assert complaints(write(f"host: mx.test\nsets: {{a: [{entries}]}}\n")).endswith("\nand 50 more")


# ── environment and files ────────────────────────────────────────────────────────────────────────────────


def test_environment(write):
    text = 'host: ${NAME}.test\nmilter:\n  workers: ${COUNT}\nuser: "${COUNT}"\nspool: /${NAME}/$${NAME}/$NAME\n'
    settings = load(write(text), {"NAME": "mx", "COUNT": "3"}).settings
    assert settings.host == "mx.test"
    assert settings.milter.workers == 3
    assert settings.user == "3"
    assert settings.spool == "/mx/${NAME}/$NAME"


def test_an_empty_variable_is_empty_text(write):
    text = "host: mx.test\nmilter:\n  group: ${NAME}\n"
    assert load(write(text), {"NAME": ""}).settings.milter.group == ""


def test_a_variable_cannot_write_yaml(write):
    text = "host: mx.test\nuser: ${NAME}\n"
    assert load(write(text), {"NAME": "a\nlog: {level: debug}"}).settings.user == "a\nlog: {level: debug}"


def test_a_variable_that_is_not_utf8(write):
    assert "is not UTF-8 text" in complaints(write("host: ${NAME}\n"), {"NAME": "caf\udce9"})


def test_our_own_environment_is_the_default(write, monkeypatch):
    monkeypatch.setenv("ELEMTA_TEST_HOST", "mx.test")
    assert load(write("host: ${ELEMTA_TEST_HOST}\n")).settings.host == "mx.test"


def test_a_value_from_a_file(write, tmp_path):
    write("elemta\n\n", "user.txt")
    loaded = load(write("host: mx.test\nuser: file:user.txt\n"))
    assert loaded.settings.user == "elemta\n"
    assert loaded.source.find(("user",)).secret
    text = "host: mx.test\nuser: file:${DIR}/user.txt\n"
    assert load(write(text), {"DIR": str(tmp_path)}).settings.user == "elemta\n"


def test_a_number_in_a_file_stays_text(write):
    write("1000\n", "user.txt")
    assert load(write("host: mx.test\nuser: file:user.txt\n")).settings.user == "1000"


def test_what_a_file_holds_is_not_told_in_an_error(write):
    write("redsi:hunter2@db.test\n", "url")
    text = "host: mx.test\nstate: file:url\nmilter: {listen: file:url, workers: file:url}\n"
    assert "hunter2" not in complaints(write(text))
    assert 'milter.listen: "***" ' in complaints(write(text))
    assert 'milter.workers: the text "***" stands here; write a whole number' in complaints(write(text))


@pytest.mark.parametrize("secret", ["token=hunter2" + "x" * 200, "hook.test/hunter2\nhook.test/hunter3"])
def test_nor_is_one_that_is_long_or_has_lines(write, secret):
    write(secret, "url")
    with pytest.raises(ConfigErrors) as errors:
        loaded_and(Policy.compile, write("host: mx.test\nchecks: {webhook: {url: file:url}}\n"))
    told = str(errors.value)
    assert "hunter" not in told
    assert 'checks.webhook.url: "***" is not the address of a web service' in told


def test_a_file_that_cannot_be_a_value(write, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # would wait for a writer for ever
    assert "is not a file" in complaints(write("host: mx.test\nuser: file:pipe\n"))
    (tmp_path / "big").write_bytes(b"x" * (1 << 20) + b"x")
    assert "longer than" in complaints(write("host: mx.test\nuser: file:big\n"))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert "not UTF-8" in complaints(write("host: mx.test\nuser: file:latin\n"))
    (tmp_path / "nul").write_bytes(b"a\0")
    assert "NUL" in complaints(write("host: mx.test\nuser: file:nul\n"))


# ── includes and paths ───────────────────────────────────────────────────────────────────────────────────


def test_a_pipe_is_no_file_to_include(write, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # would wait for a writer for ever
    assert '"pipe" is not a file' in complaints(write("host: mx.test\ninclude: pipe\n")).replace(f"{tmp_path}/", "")


def test_includes_are_merged_in_order(write):
    write("rules: {message: [{id: c}]}\ntests: [{name: c, expect: {}}]\nsets: {two: [x]}\n", "conf.d/20.yaml")
    write("rules:\n  message:\n  - id: b\n  recipient: [{id: r}]\nlog: {level: debug}\n", "conf.d/10.yaml")
    path = write(
        "include: conf.d/*.yaml\nhost: mx.test\nlog: {format: json}\nrules: {message: [{id: a}]}\nsets: {one: [y]}\n"
    )
    loaded = load(path)
    assert [rule.id for rule in loaded.settings.rules.message] == ["a", "b", "c"]
    assert [rule.id for rule in loaded.settings.rules.recipient] == ["r"]
    assert (loaded.settings.log.level, loaded.settings.log.format) == ("debug", "json")
    assert sorted(loaded.settings.sets) == ["one", "two"]
    place = loaded.source.locate(("rules", "message", 1, "id"))
    assert (Path(place.file).name, place.line, place.column) == ("10.yaml", 3, 9)
    assert [Path(file).name for file in loaded.source.files] == ["elemta.yaml", "10.yaml", "20.yaml"]


def test_a_key_may_be_an_alias_and_have_one(write):
    sets = load(write("host: mx.test\nsets: {&k one: [&w two], *w : [*k]}\n")).settings.sets
    assert (list(sets), sets["two"]) == (["one", "two"], ("one",))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('"a\\0b": 1', "a key cannot hold a NUL character; remove it"),
        ("sets: {a: &a [x], *a : [y]}", "a key must be a word; write `key: value`"),
        ("log: &a {level: debug}\nmilter: {<<: [*a, 5]}", "`<<` merges mappings; write `<<: *NAME` of one"),
    ],
)
def test_keys_that_are_none(write, text, why):
    assert why in complaints(write(f"host: mx.test\n{text}\n"))


def test_a_pattern_may_match_nothing(write):
    assert load(write("host: mx.test\ninclude: conf.d/*.yaml\n")).settings.host == "mx.test"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("checks: {spf: }", "checks: spf"),
        ("checks: spf", "checks: {spf: }"),
        ("rules: {message: [{id: a, then: accept}]}", "rules: {message: }"),
        ("rules: {message: }", "rules: {message: [{id: a, then: accept}]}"),
    ],
)
def test_what_two_files_say_in_two_ways_is_told(write, ours, theirs):
    write(f"{theirs}\n", "more.yaml")
    assert " is also given at " in complaints(write(f"host: mx.test\ninclude: more.yaml\n{ours}\n"))


def test_an_include_without_its_variable_is_told_once(write):
    assert complaints(write("host: mx.test\ninclude: ${NOWHERE}/x.yaml\n")).count("\n") == 0


@pytest.mark.parametrize("theirs", ["host: [\n", "- host\n", None])
def test_what_an_included_file_would_say_is_not_missed_where_it_cannot_be_read(write, theirs):
    if theirs:
        write(theirs, "more.yaml")
    told = complaints(write("include: more.yaml\n"))
    assert told.count("\n") == 0, told
    assert "more.yaml" in told


def test_an_included_file_may_be_empty(write):
    write("# nothing yet\n", "conf.d/a.yaml")
    assert load(write("host: mx.test\ninclude: conf.d/a.yaml\n")).settings.host == "mx.test"


def test_a_folder_with_pattern_characters_is_a_folder(write):
    write("log: {level: debug}\n", "a[b]/x.yaml")
    path = write("host: mx.test\ninclude: x*.yaml\n", "a[b]/elemta.yaml")
    assert load(path).settings.log.level == "debug"


def test_a_merge_does_not_change_what_an_alias_stands_for(write):
    write("milter: {group: mail}\n", "more.yaml")
    settings = load(write("host: mx.test\nmilter: &a {workers: 3}\npolicyd: *a\ninclude: more.yaml\n")).settings
    assert (settings.milter.group, settings.policyd.group) == ("mail", "postfix")


def test_errors_in_several_files_come_together(write):
    write("log: [\n", "conf.d/a.yaml")
    write("log: {\n", "conf.d/b.yaml")
    text = complaints(write("host: mx.test\ninclude: conf.d/*.yaml\nhost: again\n"))
    assert [line.partition(":")[0].rpartition("/")[2] for line in text.splitlines()] == [
        "a.yaml",
        "b.yaml",
        "elemta.yaml",
    ]


def test_a_directory_that_hides_its_files_is_not_an_empty_one(write, tmp_path, monkeypatch):
    write("user: other\n", "conf.d/a.yaml")
    main, scandir = write("host: mx.test\ninclude: [none.d/*.yaml, conf.d/*.yaml]\n"), os.scandir

    def as_another_user(path):
        if "conf.d" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    assert load(main).settings.user == "other"
    monkeypatch.setattr(os, "scandir", as_another_user)
    text = f'elemta.yaml:2:26: include: "{tmp_path}/conf.d" cannot be read: permission denied; make the directory read'
    assert text in complaints(main)


def test_paths_are_taken_from_the_file_that_names_them(write, tmp_path):
    write("x\n", "conf.d/set.txt")
    write("x\n", "set.txt")
    more = "quarantine: {postfix: ../postfix}\nreports: {from: dmarc@b.test, file: reports.db}\n"
    write(f"sets: {{theirs: {{file: set.txt}}}}\nspool: spool\n{more}", "conf.d/a.yaml")
    text = """
        host: mx.test
        include: conf.d/a.yaml
        sets: {ours: &a {file: set.txt}, again: *a}
        journal: {path: journal.db}
        tests: [{name: t, expect: {}, given: {file: set.txt}}]
    """
    settings = load(write(text)).settings
    assert settings.sets["ours"].file == settings.sets["again"].file == str(tmp_path / "set.txt")
    assert settings.sets["theirs"].file == str(tmp_path / "conf.d" / "set.txt")
    assert settings.journal.path == str(tmp_path / "journal.db")
    assert settings.spool == str(tmp_path / "conf.d" / "spool")
    assert settings.quarantine.postfix == str(tmp_path / "postfix")
    assert settings.reports.file == str(tmp_path / "conf.d" / "reports.db")
    assert settings.tests[0].given == {"file": "set.txt"}


def test_a_set_that_may_not_be_read(write, tmp_path):
    if os.geteuid() == 0:
        os.mkfifo(tmp_path / "set.txt")
    else:
        (tmp_path / "set.txt").touch(mode=0o000)
    text = complaints(write("host: mx.test\nsets: {a: {file: set.txt}}\n"))
    assert "sets.a.file: " in text


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_of_16_mib_is_the_longest(write):
    head = "host: mx.test\n#"
    assert load(write(head + "x" * ((16 << 20) - len(head)))).settings.host == "mx.test"
    assert "longer than 16 MiB" in complaints(write(head + "x" * ((16 << 20) - len(head) + 1)))


@pytest.mark.timeout(10)
def test_a_hundred_thousand_brackets_end_soon(write):
    assert "inside each other" in complaints(write("host: " + "[" * 100_000))


@pytest.mark.timeout(10)
def test_a_bomb_of_merges_ends_soon(write):
    text = "host: mx.test\na0: &a0 {" + ", ".join(f"k{n}: v" for n in range(100)) + "}\n"
    text += "".join(f"a{n}: &a{n}\n  <<: [" + ", ".join([f"*a{n - 1}"] * 50) + "]\n" for n in range(1, 200))
    assert "more than 250000 values" in complaints(write(text))


@pytest.mark.timeout(20)
def test_a_thousand_rules_load(write):
    rules = "".join(
        f'  - id: rule{n}\n    when: {{spf: fail, client.name: {{glob: "*.x{n}.test"}}}}\n    then: reject\n'
        f'    reply: "550 5.7.1 no"\n    label: [a, b]\n'
        for n in range(1000)
    )
    assert len(load(write("host: mx.test\nrules:\n  message:\n" + rules)).settings.rules.message) == 1000


def test_more_files_than_anybody_needs(write, monkeypatch):
    monkeypatch.setattr("elemta.config.source.MAX_FILES", 2)
    write("log: {level: debug}\n", "conf.d/a.yaml")
    assert load(write("host: mx.test\ninclude: conf.d/*.yaml\n")).settings.log.level == "debug"
    write("user: me\n", "conf.d/b.yaml")
    assert "more than 2 files; join some" in complaints(write("host: mx.test\ninclude: conf.d/*.yaml\n"))


def test_a_wrong_from_in_another_section_hides_no_mistake(write):
    rules = "rules: {message: [{id: a, when: {dmark: pass}, then: reject}]}\n"
    with pytest.raises(ConfigErrors) as caught:
        loaded_and(Policy.compile, write(f"host: mx.test\nmetrics: {{from: a@b.test}}\n{rules}"))
    assert {problem.path[0] for problem in caught.value.problems} == {"metrics", "rules"}
