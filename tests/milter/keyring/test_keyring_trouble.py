"""`elemta dkim` where something is in its way: a directory that is not there yet, a full disk, another command."""

from __future__ import annotations

import os

import pytest

from elemta.cli import main
from elemta_milter.keyring import ring as rings


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "elemta.yaml"
    path.write_text("host: mx.test\n")
    return path


def dkim(config, *words, status=os.EX_OK):
    assert main(["dkim", *words, "--config", str(config)]) == status


def names(directory):
    return [key.selector for key in rings.read(directory).keys]


@pytest.mark.parametrize("directory", ["keys/example.org", "secret/example.org"])
def test_the_first_keys_are_made_where_the_policy_says(config, monkeypatch, directory):
    with config.open("a") as file:
        file.write(f"sign: [{{domain: example.org, keys: {{directory: {directory}}}}}]\n")
    monkeypatch.chdir(config.parent)
    dkim(config.relative_to(config.parent), "new", "example.org", "--type", "ed25519", "--selector", "e")
    assert names(config.parent / directory) == ["e"]
