"""A real clamd behind our milter: is the test virus found however it is packed and encoded, and nothing else?"""

import base64
import binascii
import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from harness import clamd as harness
from harness.clamd import EICAR, VIRUS, Clamd
from harness.daemon import Daemon
from harness.mta import ACCEPT, REPLY, Mta

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(harness.why_not()), reason=harness.why_not())]

POLICY = """
checks: {{clamav: {{socket: "{socket}"}}}}
rules: {{message: [{{id: virus, when: {{clamav: fail}}, then: reject, reply: "550 5.7.1 {{clamav.virus}} found"}}]}}
"""


def zipped(data, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.com", data)
    return file.getvalue()


def tarred(data, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        entry = tarfile.TarInfo("a.com")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def uuencoded(data):
    lines = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    return b"begin 644 a.com\n" + lines + b"`\nend\n"


def quoted(data):
    """Every octet, since line ends in an archive must come through."""
    return b"=\n".join(b"".join(b"=%02X" % octet for octet in data[at : at + 25]) for at in range(0, len(data), 25))


PACKED = {
    "plain": lambda data: data,
    "zip": zipped,
    "stored": lambda data: zipped(data, zipfile.ZIP_STORED),
    "zips": lambda data: zipped(zipped(zipped(data))),
    "tar": tarred,
    "tgz": lambda data: tarred(data, "w:gz"),
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "gz-in-zip": lambda data: zipped(gzip.compress(data)),
}
ENCODED = {
    "base64": base64.encodebytes,
    "quoted-printable": quoted,
    "x-uuencode": uuencoded,
}


@pytest.fixture(scope="module", params=["unix", "inet"])
def milter(request):
    with Clamd(tcp="127.0.0.1") as clamd:
        socket = clamd.address if request.param == "unix" else clamd.inet
        with Daemon("milter", POLICY.format(socket=socket), workers=1) as daemon:
            yield daemon


def verdict(daemon, data, encoding):
    fields = {
        b"MIME-Version": b"1.0",
        b"Content-Type": b"multipart/mixed; boundary=b",
    }
    head = b'--b\n\nhello\n--b\nContent-Type: application/octet-stream; name="invoice.pdf"\n'
    head += f"Content-Transfer-Encoding: {encoding}\n\n".encode()
    body = head + ENCODED[encoding](data) + b"\n--b--\n"
    mta = Mta(daemon.address)
    mta.hello()
    answer = mta.carry(*fields.items(), body=body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))[-1]
    mta.sock.close()
    return answer


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("packing", PACKED)
def test_the_virus_is_found_in_every_wrapping(milter, packing, encoding):
    kind, said = verdict(milter, PACKED[packing](EICAR), encoding)
    assert (kind, said.get("text")) == (REPLY, f"5.7.1 {VIRUS} found")
    assert verdict(milter, PACKED[packing](EICAR[:-1]), encoding)[0] == ACCEPT
