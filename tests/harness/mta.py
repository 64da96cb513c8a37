"""The MTA's side of the milter protocol: what does the milter answer to each packet?

Built on miltertest, an independent client library; octets go out as they are, and an answer is only waited for where
one was agreed.
"""

from __future__ import annotations

import json
import socket
import struct

import miltertest

CONTINUE, TEMPFAIL, REJECT, DISCARD, REPLY = "c", "t", "r", "d", "y"
ACCEPT = CONTINUE  # at the end of a message


class Mta(miltertest.MilterConnection):
    """The MTA's side; sends octets as they are, and waits only for answers that were agreed."""

    QUIET = {"C": 0x1000, "M": 0x4000, "R": 0x8000, "L": 0x80}  # noqa: RUF012
    NEVER = {"B": 0x10, "N": 0x40, "U": 0x100, "T": 0x200}  # noqa: RUF012

    def __init__(self, address, *, actions=0x1FF, protocol=0x1FFFFF, version=6):
        if address.startswith("unix:"):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(10)
            link.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.removeprefix("inet:").rpartition(":")
            link = socket.create_connection((host.strip("[]"), int(port)), 10)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(link)
        self.packet("O", struct.pack("!III", version, actions, protocol))
        header = self.exactly(5)
        answer = self.exactly(struct.unpack("!I", header[:4])[0] - 1)
        assert header[4:] == b"O"
        self.version, self.actions, self.protocol = struct.unpack("!III", answer[:12])
        self.symbols = answer[12:]
        assert not self.actions & ~actions
        assert not self.protocol & ~protocol

    def exactly(self, octets):
        data = b""
        while len(data) < octets:
            got = self.sock.recv(octets - len(data))
            assert got, "the milter hung up"
            data += got
        return data

    def packet(self, command, data=b""):
        self.sock.sendall(struct.pack("!Ic", len(data) + 1, command.encode()) + data)

    def step(self, command, data=b""):
        if self.protocol & self.NEVER.get(command, 0):
            return CONTINUE
        self.packet(command, data)
        return CONTINUE if self.protocol & self.QUIET.get(command, 0) else self.recv()[0]

    def macros(self, command, **values):
        self.packet("D", command.encode() + b"".join(f"{k}\0{v}\0".encode() for k, v in values.items()))

    def hello(self, name=b"mail.example.com", address=b"192.0.2.7", helo=b"helo.example.com"):
        assert self.step("C", name + b"\0004" + struct.pack("!H", 40000) + address + b"\0") == CONTINUE
        assert self.step("H", helo + b"\0") == CONTINUE

    def envelope(self, sender=b"<a@b.test>", *recipients, options=()):
        assert self.step("M", b"\0".join((sender, *options)) + b"\0") == CONTINUE
        for recipient in recipients or (b"<r@example.org>",):
            assert self.step("R", recipient + b"\0") == CONTINUE

    def fields(self, *fields):
        for name, value in fields:
            assert self.step("L", name + b"\0" + value + b"\0") == CONTINUE

    def end(self):
        """Edits and the verdict, [(command, fields), ..., (verdict, fields)]."""
        self.packet("E")
        answers = []
        while not answers or answers[-1][0] not in "actrdy":
            answers.append(self.recv())
        return answers

    def carry(self, *fields, do=None, body=b"", sender=b"<a@b.test>"):
        """One whole mail on an open session."""
        self.envelope(sender)
        self.fields((b"From", b" a@b.test"), *fields, *([(b"X-Do", b" " + json.dumps(do).encode())] if do else []))
        for at in range(0, len(body), 65535):
            assert self.step("B", body[at : at + 65535]) == CONTINUE
        return self.end()
