"""A real Postfix of its own: what does it do with this mail?

    with PrivatePostfix(milter=True) as postfix:
        ... start elemta-milter on postfix.milter_socket ...
        outcome = postfix.send("a@example.com", "b@example.org", message, xclient={"addr": "192.0.2.7"})
        assert outcome.accepted
        [mail] = postfix.wait_delivered(1)

Configuration comes from postfix-conf/, the same templates as everywhere else. Queue, log, mailboxes and port are its
own, below a new directory; the system's Postfix is neither read nor touched, and several may run side by side.
Mail to `domains` is delivered by virtual(8) into one maildir; anything else stays in the deferred queue, so nothing
ever leaves the machine. Needs root (Postfix's master switches users) and Debian's package postfix: `why_not()` says.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from elemta.cli.postfix import render
from harness.smtp import Outcome, Reply, Session

__all__ = ["Outcome", "PrivatePostfix", "Reply", "Session", "why_not"]

_QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
_NOBODY = 65534  # owner of the maildirs

# What tests need and no real server wants; everything else is postfix-conf/'s.
_FOR_TESTS = {
    "local_header_rewrite_clients": "",  # XCLIENT would not take this right of loopback back: no Date, Message-Id added
    "smtpd_client_event_limit_exceptions": "static:all",
    "smtpd_soft_error_limit": "10000",
    "smtpd_hard_error_limit": "20000",
    "smtpd_junk_command_limit": "10000",
}


def why_not() -> str:
    """Why a private Postfix cannot run here, for pytest.mark.skipif; "" if it can."""
    if not Path("/usr/sbin/postfix").exists():
        return "Postfix is not installed (Debian package postfix)"
    if os.geteuid() != 0:
        return "a private Postfix needs root: its master process starts programs as the user postfix; use sudo"
    return ""


class PrivatePostfix:
    """A Postfix instance; a context manager, or `start()` and `stop()`.

    milter, policyd: True uses a unix socket in `sockets` (reachable for the user postfix; pytest's tmp_path is not);
        text is taken as it is, "inet:127.0.0.1:8891"; False leaves it out.
    domains: those it delivers for. recipients: the addresses that exist; None = every one.
    variables: of postfix-conf/variables.yaml. main: parameters of main.cf set last, over the template's.
    tls: offer STARTTLS with a certificate of its own. memory: keep everything in /dev/shm, for benches.
    """

    def __init__(
        self,
        *,
        milter: bool | str = False,
        policyd: bool | str = False,
        hostname: str = "mx1.example.org",
        domains: Iterable[str] = ("example.org", "example.net"),
        recipients: Iterable[str] | None = None,
        variables: Mapping[str, str] | None = None,
        main: Mapping[str, str] | None = None,
        tls: bool = False,
        memory: bool = False,
    ) -> None:
        reason = why_not()
        if reason:
            raise RuntimeError(reason)
        self.directory = Path(tempfile.mkdtemp(prefix="elemta-postfix-", dir="/dev/shm" if memory else None))
        self.config = self.directory / "etc"
        self.sockets = self.directory / "queue" / "elemta"
        self.milter_socket = self.sockets / "milter.sock"
        self.policyd_socket = self.sockets / "policyd.sock"
        self.port = _free_port()
        self._log = self.directory / "log" / "mail.log"
        self._shell: subprocess.Popen[bytes] | None = None
        self._make_directories()
        known = f"inline:{{ {' '.join(f'{each}=mail/' for each in recipients)} }}" if recipients else "static:mail/"
        values = {
            "HOSTNAME": hostname,
            "INET_INTERFACES": "127.0.0.1",
            "INET_PROTOCOLS": "all",
            "SMTP_LISTEN": f"127.0.0.1:{self.port}",
            "QUEUE_DIRECTORY": str(self.directory / "queue"),
            "DATA_DIRECTORY": str(self.directory / "data"),
            "MAILLOG_FILE": str(self._log),
            "MAILLOG_PREFIXES": str(self.directory),
            "MYDESTINATION": "",
            "ALIAS_MAPS": "",
            "VIRTUAL_MAILBOX_DOMAINS": " ".join(("$myhostname", *domains)),
            "VIRTUAL_MAILBOX_MAPS": known,
            "VIRTUAL_MAILBOX_BASE": str(self.directory / "boxes"),
            "VIRTUAL_UID": str(_NOBODY),
            "VIRTUAL_GID": str(_NOBODY),
            "DEFAULT_TRANSPORT": "smtp:[127.0.0.1]:1",
            "MILTER": _endpoint(milter, self.milter_socket),
            "POLICYD": _endpoint(policyd, self.policyd_socket),
            "ERROR_SLEEP_TIME": "0",
            "XCLIENT_HOSTS": "127.0.0.1",
            "XFORWARD_HOSTS": "127.0.0.1",
        }
        if tls:
            values |= {"TLS_SECURITY_LEVEL": "may", "TLS_CHAIN_FILES": str(self._certificate(hostname))}
        render(self.config, values | dict(variables or {}))
        settings = dict(_FOR_TESTS)
        if not policyd:
            settings["smtpd_recipient_restrictions"] = "reject_non_fqdn_recipient reject_unlisted_recipient permit"
            settings["smtpd_end_of_data_restrictions"] = ""
        self.postconf(**(settings | dict(main or {})))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()

    # ------------------------------------------------------------------ the process

    def start(self) -> None:
        """Start, and return when the banner was seen.

        Raises:
            RuntimeError: it ended at once or gave no banner; the text holds the log.
        """
        program = Path(_output("postconf", "-c", self.config, "-h", "daemon_directory").strip()) / "master"
        # The shell ends Postfix when its standard input is closed: by stop(), or because the tests died.
        self._shell = subprocess.Popen(
            ["sh", "-c", '"$@" </dev/null & read _; kill $!; wait $!', "sh", program, "-c", self.config, "-s"],
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                    if probe.recv(3) == b"220":
                        return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"Postfix did not start:\n{self.log()}")

    def stop(self) -> None:
        """Stop; what is queued stays queued and goes on after the next `start()`."""
        if self._shell is None or self._shell.stdin is None:
            return
        pid = self.pid
        self._shell.stdin.close()
        try:
            self._shell.wait(5)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # master leads a process group; normally it is empty by now
        self._shell = None

    @property
    def pid(self) -> int:
        """Process id of the master; 0 when it is not running."""
        try:
            return int((self.directory / "queue" / "pid" / "master.pid").read_text()) if self._shell else 0
        except (FileNotFoundError, ValueError):
            return 0

    def remove(self) -> None:
        """Remove every trace from the disk."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def postconf(self, **parameters: str) -> None:
        """Change parameters of main.cf; a running instance needs `reload()`."""
        _output("postconf", "-c", self.config, "-e", *(f"{name}={value}" for name, value in parameters.items()))
        for file in ("main.cf", "master.cf"):
            os.utime(self.config / file, (0, 0))  # Postfix waits up to two seconds before it trusts a fresh file

    def reload(self) -> None:
        """Take the changed configuration for new connections."""
        os.kill(self.pid, signal.SIGHUP)
        time.sleep(0.2)

    # ------------------------------------------------------------------ mail in

    def session(
        self,
        *,
        helo: str = "client.example.com",
        xclient: Mapping[str, object] | None = None,
        starttls: bool = False,
        timeout: float = 60,
    ) -> Session:
        """An open SMTP connection, for several messages or odd commands."""
        return Session(("127.0.0.1", self.port), helo=helo, xclient=xclient, starttls=starttls, timeout=timeout)

    def send(
        self,
        sender: str,
        recipients: str | Iterable[str],
        data: bytes | str,
        *,
        helo: str = "client.example.com",
        xclient: Mapping[str, object] | None = None,
        starttls: bool = False,
        timeout: float = 60,
        **options: Any,
    ) -> Outcome:
        """Carry one message on a connection of its own; options as in `Session.send`."""
        with self.session(helo=helo, xclient=xclient, starttls=starttls, timeout=timeout) as session:
            return session.send(sender, recipients, data, **options)

    # ------------------------------------------------------------------ mail out

    def delivered(self) -> list[bytes]:
        """Every message delivered so far, oldest first, one for each recipient, LF line ends.

        virtual(8) puts Return-Path, X-Original-To and Delivered-To on top.
        """
        box = self.directory / "boxes" / "mail" / "new"
        found = sorted(box.iterdir(), key=lambda path: path.stat().st_mtime_ns) if box.is_dir() else []
        return [path.read_bytes() for path in found]

    def wait_delivered(self, count: int, timeout: float = 10) -> list[bytes]:
        """Wait until at least `count` messages are delivered and return all.

        Raises:
            AssertionError: fewer came in time; the text holds queue and log.
        """
        deadline = time.monotonic() + timeout
        while len(mails := self.delivered()) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(mails)} of {count} delivered; queue {self.queue()}\n{self.log()}")
            time.sleep(0.02)
        return mails

    # ------------------------------------------------------------------ the queue

    def queue(self) -> list[dict[str, Any]]:
        """What `postqueue -j` says: queue_name, queue_id, sender, recipients, …"""
        return [json.loads(line) for line in _output("postqueue", "-c", self.config, "-j").splitlines()]

    def wait_empty(self, timeout: float = 120) -> None:
        """Wait until every mail has left the queue (but those on hold).

        Raises:
            AssertionError: some did not in time.
        """
        folders = [self.directory / "queue" / name for name in ("maildrop", "incoming", "active", "deferred")]
        deadline = time.monotonic() + timeout
        while any(files for folder in folders for _, _, files in os.walk(folder)):
            if time.monotonic() > deadline:
                raise AssertionError(f"still in the queue: {self.queue()[:20]}\n{self.log()}")
            time.sleep(0.02)

    def held(self) -> list[str]:
        """Ids of the messages in the hold queue (Elemta's quarantine)."""
        return [entry["queue_id"] for entry in self.queue() if entry["queue_name"] == "hold"]

    def hold(self, queue_id: str) -> None:
        _output("postsuper", "-c", self.config, "-h", queue_id)

    def release(self, queue_id: str) -> None:
        """From hold back to the queue, and try delivery."""
        _output("postsuper", "-c", self.config, "-H", queue_id)
        self.flush()

    def delete(self, queue_id: str = "ALL") -> None:
        _output("postsuper", "-c", self.config, "-d", queue_id)

    def flush(self) -> None:
        _output("postqueue", "-c", self.config, "-f")

    def postcat(self, queue_id: str, *, envelope: bool = False) -> bytes:
        """Header and body of a queued message (with envelope: all records, as postcat prints them)."""
        wanted = ["-q"] if envelope else ["-qhb"]
        return subprocess.run(["postcat", "-c", self.config, *wanted, queue_id], check=True, capture_output=True).stdout

    # ------------------------------------------------------------------ the log

    def log(self) -> str:
        """The whole mail log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_log(self, pattern: str, timeout: float = 5) -> re.Match[str]:
        """Wait for a regular expression in the log.

        Raises:
            AssertionError: it did not come in time.
        """
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.log())):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} in the log:\n{self.log()}")
            time.sleep(0.02)
        return found

    # ------------------------------------------------------------------ making it

    def _make_directories(self) -> None:
        """What Postfix's own post-install would make, without its two seconds."""
        owner = pwd.getpwnam("postfix")
        drop = grp.getgrnam("postdrop").gr_gid
        for name, mode, uid, gid in (
            (".", 0o755, 0, 0),
            ("etc", 0o755, 0, 0),
            ("data", 0o700, owner.pw_uid, owner.pw_gid),
            ("log", 0o755, 0, 0),
            ("boxes", 0o755, 0, 0),
            ("boxes/mail", 0o700, _NOBODY, _NOBODY),
            ("queue", 0o755, 0, 0),
            ("queue/pid", 0o755, 0, 0),
            *((f"queue/{queue}", 0o700, owner.pw_uid, 0) for queue in _QUEUES),
            ("queue/maildrop", 0o730, owner.pw_uid, drop),
            ("queue/public", 0o710, owner.pw_uid, drop),
            ("queue/elemta", 0o2775, 0, owner.pw_gid),
        ):
            path = self.directory / name
            path.mkdir(exist_ok=True)
            os.chown(path, uid, gid)
            path.chmod(mode)

    def _certificate(self, hostname: str) -> Path:
        chain = self.directory / "etc" / "tls.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", f"/CN={hostname}", "-keyout", "-", "-out", "-"]
        chain.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        chain.chmod(0o600)
        return chain


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _endpoint(wanted: bool | str, own: Path) -> str:
    return wanted if isinstance(wanted, str) else f"unix:{own}" if wanted else ""


def _output(program: str, *arguments: str | Path) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout
