"""Privileges: started as root, the daemon is somebody else when mail arrives, and Postfix may reach its socket."""

import grp
import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from elemta.daemon import privileges
from harness.daemon import Daemon

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: who is not root has nothing to drop")


def identity(pid):
    """Who a process is in every respect."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = {name: numbers for name, *numbers in map(str.split, lines)}
    return tuple((name, *map(int, told[name])) for name in ("Uid:", "Gid:", "Groups:"))


@root_only
def test_workers_are_the_configured_user_and_the_socket_is_for_the_group():
    place = Path(tempfile.mkdtemp(prefix="elemta-drop-"))
    place.chmod(0o755)
    daemon = Daemon("policyd", listen=f"unix:{place}/new/policyd.sock", own="group: users")
    text = (
        daemon.policy.read_text()
        .replace("user: root", "user: nobody")
        .replace(str(daemon.directory), str(place / "var"))
    )
    daemon.policy.write_text(text)
    try:
        daemon.start()
        nobody = pwd.getpwnam("nobody").pw_uid

        identities = {identity(pid) for pid in (*daemon.children(), daemon.process.pid)}
        group = pwd.getpwnam("nobody").pw_gid
        assert identities == {(("Uid:", *[nobody] * 4), ("Gid:", *[group] * 4), ("Groups:", group))}
        made = (place / "new").stat(), (place / "new" / "policyd.sock").stat(), (place / "var" / "metrics").stat()
        users = grp.getgrnam("users").gr_gid
        assert [(each.st_uid, each.st_gid) for each in made] == [(nobody, users), (0, users), (nobody, group)]
        assert (place / "new" / "policyd.sock").stat().st_mode & 0o777 == 0o660
        daemon.signal(signal.SIGHUP)  # a reload needs no privilege that was dropped
        daemon.wait_for("reloaded daemon=policyd ok=true")
        assert daemon.stop() == 0
        assert not (place / "new" / "policyd.sock").exists()
    finally:
        daemon.stop()
        shutil.rmtree(place)


@root_only
def test_a_socket_in_a_directory_closed_to_its_user_is_not_taken_for_lost():
    place = Path(tempfile.mkdtemp(prefix="elemta-drop-"))
    place.chmod(0o755)
    (place / "private").mkdir(mode=0o700)  # as Postfix has one
    daemon = Daemon("policyd", listen=f"unix:{place}/private/policyd.sock")
    text = daemon.policy.read_text().replace("user: root", "user: nobody")
    daemon.policy.write_text(text.replace(str(daemon.directory), str(place / "var")))
    try:
        daemon.start()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reloaded daemon=policyd ok=true")
        daemon.connect()
        assert "nobody can connect" not in daemon.log()
    finally:
        daemon.stop()
        shutil.rmtree(place)


@root_only
def test_a_user_that_is_named_and_missing_is_67():
    daemon = Daemon("policyd")
    daemon.policy.write_text(daemon.policy.read_text().replace("user: root", "user: nosuchuser"))
    daemon.start(wait=False)

    assert daemon.process.wait(20) == os.EX_NOUSER
    assert 'there is no user "nosuchuser"' in daemon.log()


@root_only
def test_directories_of_another_user_are_told_with_the_user_that_needs_them():
    daemon = Daemon("policyd")
    (daemon.directory / "metrics").mkdir()  # root's
    daemon.policy.write_text(daemon.policy.read_text().replace("user: root", "user: nobody"))
    daemon.start(wait=False)

    assert daemon.process.wait(20) == os.EX_OSERR
    assert f"{daemon.directory}/metrics" in daemon.log()
    assert "; make it writable for the user nobody, or name other places" in daemon.log()


def test_nothing_is_dropped_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    privileges.drop("nobody", named=True)


def test_a_missing_default_user_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    privileges.drop("nosuchuser", named=False)
    assert "staying root" in caplog.text


def test_what_is_made_is_not_for_everybody(tmp_path):
    before = os.umask(0o022)
    try:
        privileges.prepare([tmp_path / "new"], "root")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750
