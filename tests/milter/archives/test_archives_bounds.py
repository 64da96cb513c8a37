"""Archives made to cost: bombs end at a bound, which is told, and neither time nor memory goes with them."""

from __future__ import annotations

import gzip
import resource
import struct
import time
import tracemalloc
import zlib
from contextlib import contextmanager

import pytest

from elemta_milter.archives import Bounds, Budget, Walk, oles
from harness.archives import PROGRAM, _number, ole, onenote, packaged, sevenzipped, tarred, zipped

NO_BOUND = {"ratio": 10**12, "octets": 10**15}
MIB = 1 << 20


@contextmanager
def cheap(seconds=1.5, memory=150 * MIB):
    """Processor time and memory stay below a generous bound."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    yield
    assert time.thread_time() - began < seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < memory


def excess(data, name="x", **bounds):
    walk = Walk(Budget(Bounds(**bounds)))
    with cheap():
        for _ in walk.over(data, name):
            pass
    return walk.excess


def zeros(octets):
    """A gzip file of so many zeros, without making them: whole blocks of deflate, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * (octets // MIB)


BOMB = zeros(10 << 30)


def test_ten_gigabytes_of_zeros_end_at_the_ratio():
    assert len(BOMB) < 20 * MIB
    assert excess(BOMB, "x.gz") == ("ratio 100",)


def test_or_at_the_octets_or_at_the_time():
    assert excess(BOMB, ratio=10**12, octets=MIB) == (f"{MIB} octets unpacked",)
    assert excess(BOMB, seconds=0.3, **NO_BOUND) == ("0.3 s of processor time",)


def test_an_archive_of_archives_of_archives_ends_at_the_ratio():
    made = zipped(*((f"{at}.bin", bytes(4 * MIB)) for at in range(2)))
    for depth in range(4):
        made = zipped(*((f"{depth}.{at}.zip", made) for at in range(16)))
    assert excess(made) == ("ratio 100",)
    assert excess(made, seconds=0.3, **NO_BOUND)


def test_files_that_share_their_octets_count_each_time():
    """One packed megabyte that thousands of entries of the central directory point to."""
    made = zipped(("a", bytes(MIB)))
    start = made.index(b"PK\1\2")
    central = made[start : made.index(b"PK\5\6")] * 1500
    made = made[:start] + central + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1500, 1500, len(central), start, 0)
    assert excess(made) == ("ratio 100",)
    assert excess(made, ratio=10**12, octets=64 * MIB) == (f"{64 * MIB} octets unpacked",)


def test_an_archive_that_holds_itself_ends_at_the_depth():
    def deeper(data, level):
        return data if not level else zipped((f"{level}.zip", deeper(data, level - 1)))

    assert excess(deeper(b"end", 40)) == ("depth 5",)


def test_a_tar_that_claims_terabytes_is_broken_and_costs_nothing():
    made = bytearray(tarred(("a.txt", b"hello")))
    made[124:136] = b"\x80" + (1 << 42).to_bytes(11, "big")
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    walk = Walk(Budget(Bounds()))
    with cheap():
        assert len(list(walk.over(bytes(made), "x.tar"))) == 2
    assert walk.broken


def test_so_many_files_are_looked_at_and_no_more():
    made = zipped(*((f"{at}.txt", b"") for at in range(30)))
    walk = Walk(Budget(Bounds(entries=20)))
    assert len(list(walk.over(made, "x"))) == 21
    assert walk.excess == ("20 files in archives",)


def test_a_long_name_is_cut_at_its_beginning():
    walk = Walk(Budget(Bounds(name=20)))
    *_, entry = walk.over(zipped(("a" * 300 + ".exe", b"")), "x")
    assert entry.name == "…" + "a" * 15 + ".exe"
    assert walk.excess == ("a name of 20 characters",)


def test_nobody_waits_any_more():
    walk = Walk(Budget(Bounds(), until=time.monotonic() - 1))
    assert len(list(walk.over(zipped(("a", b"")), "x"))) == 1
    assert walk.excess == ("the time that the mail may take",)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\3\4" * (4 * MIB),
        (b"PK\3\4\x14\0\0\0\0\0" + bytes(16) + b"\1\0\0\0x") * 400_000,
        (b"PK\3\4\x14\0\x08\0\x08\0" + bytes(16) + b"\1\0\0\0x\x63\0\0\0") * 400_000,
        b"PK\5\6" * (4 * MIB),
        b"Rar!\x1a\x07\x00" + (b"\0\0\x74\0\0\x21\0" + bytes(18) + b"\x33\1\0" + bytes(5)) * 400_000,
        b"Rar!\x1a\x07\x01\x00" + (bytes(4) + b"\x0a\2\0\0\0\0\x80\x03\0\1xx") * 800_000,
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0" * 400_000,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(22) + b"\x09\0\x06\0" + bytes(16 * MIB),
    ],
    ids=["zip", "stored", "open", "ends", "rar4", "rar5", "gz", "ole"],
)
def test_headers_without_end_cost_no_more_than_the_budget(data):
    with cheap():
        for _ in Walk(Budget(Bounds())).over(data, "x"):
            pass


def test_a_7z_header_that_counts_more_than_it_holds_is_refused():
    made = sevenzipped(("a", PROGRAM))
    for at in range(32, len(made)):
        with cheap():
            for _ in Walk(Budget(Bounds())).over(made[:at] + b"\xff" * 9 + made[at + 9 :], "x.7z"):
                pass


def test_small_files_have_no_ratio():
    walk = Walk(Budget(Bounds()))
    for _ in walk.over(gzip.compress(bytes(500_000)), "x.gz"):
        pass
    assert (walk.excess, walk.budget.ratio) == ((), 0.0)


def test_each_attachment_has_its_own_ratio_and_one_within_another_too():
    budget = Budget(Bounds())
    with budget.attachment(10):
        assert budget.unpacked(500)
        with budget.attachment(1 << 20):
            assert budget.unpacked(10 << 20)
    with budget.attachment(1 << 20):
        assert budget.unpacked(10 << 20)
    assert budget.excess == {}


def test_a_compound_file_whose_tables_go_round_in_a_circle_is_cheap():
    """A table of tables that leads to itself, in a file of many sectors."""
    made = bytearray(ole({"WordDocument": bytes(5000)}).ljust(40 * MIB, b"\1"))
    made[68:72] = struct.pack("<L", 20)
    made[21 * 512 : 22 * 512] = struct.pack("<L", 1) * 127 + struct.pack("<L", 20)
    with cheap(seconds=1.5, memory=100 * MIB):
        oles.Ole(memoryview(made))


@pytest.mark.parametrize(
    "token", [b"{", b"}", b"\\a", b"4 ", b"{\\*", b"\\objdata ", b"\\bin1 x", b"\\'", b"\\objdata}"]
)
def test_rtf_of_nothing_but_tokens_ends_in_time(token):
    assert excess(b"{\\rtf\\objdata " + token * (8 * MIB // len(token)), seconds=0.3) in (
        (),
        ("0.3 s of processor time",),
    )


def test_tnef_that_counts_more_than_it_holds_is_cheap():
    properties = struct.pack("<LHHL", 0xFFFFFFFF, 0x1001, 1, 0xFFFFFFFF)
    made = struct.pack("<LHBLL", 0x223E9F78, 1, 2, 0x00069005, len(properties)) + properties + b"\0\0"
    assert excess(made * 1000) == ()


def test_a_onenote_section_of_nothing_but_files_and_references_ends_in_time():
    many = onenote(*[(".exe", b"")] * 5000)
    assert excess(many + bytes(8 << 20))
    far = many.replace(struct.pack("<QLQ", 0, 0, 0), struct.pack("<QLQ", 1 << 40, 0, 0))  # each reaches to the end
    assert excess(far + bytes(8 << 20))


@pytest.mark.parametrize(
    ("several", "ends"),
    [
        (struct.pack("<HHL", 0x1001, 0x3001, 0xFFFFFFFF) * 2500, ()),  # each has billions of values without an octet
        (struct.pack("<HHL", 0x101F, 0x3001, 0xFFFFFFFF) + bytes(16 * MIB), ("0.3 s of processor time",)),
        (struct.pack("<HHL", 0x101F, 0x3001, 0) * (2 * MIB), ("0.3 s of processor time",)),
    ],
)
def test_properties_of_a_winmail_dat_without_end_cost_no_more(several, ends):
    properties = struct.pack("<L", 1 << 31) + several
    made = b"\x78\x9f\x3e\x22\0\0\2" + struct.pack("<HHL", 0x9005, 6, len(properties)) + properties + b"\0\0"
    assert excess(made, "winmail.dat", seconds=0.3) == ends


@pytest.mark.parametrize("tag", [0x8010, 0x800F])
def test_an_attachment_of_outlook_with_countless_names_or_contents_costs_no_more(tag):
    each = b"".join(struct.pack("<BHHL8sH", 2, tag, 1, 8, b"%07x" % number, 0) for number in range(60_000))
    walk = Walk(Budget(Bounds()))
    with cheap(memory=60 * MIB):
        names = [name for entry in walk.over(b"\x78\x9f\x3e\x22\0\0" + each, "winmail.dat") for name in entry.names]
    assert len(names) <= 2001
    assert walk.broken or walk.excess == ("2000 files in archives",)


_FOLDERS = b"\7\x0b" + _number(3000) + b"\0" + b"\1\1\0" * 3000 + b"\x0c" + b"\0" * 3000


@pytest.mark.parametrize(
    "header",
    [
        b"\1\5" + _number(20_000) + b"\x0f\0" * 20_000 + b"\0",  # which of no files are folders
        b"\1\4" + _FOLDERS + b"\0" + b"\x08\0" * 6000 + b"\0\0",  # how many files each folder holds
        b"\1\4" + _FOLDERS + b"\x0a\1" + bytes(12_000) + b"\0" + b"\x08" + b"\x0a\0" * 6000 + b"\0\0\0",
    ],
)
def test_a_7z_header_that_tells_one_thing_again_and_again_is_broken(header):
    start = struct.pack("<QQL", 0, len(header), zlib.crc32(header))
    made = b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<L", zlib.crc32(start)) + start + header
    walk = Walk(Budget(Bounds()))
    with cheap(seconds=0.5):
        assert len(list(walk.over(made, "x.7z"))) == 1
    assert walk.broken


def test_a_file_packed_into_a_compound_file_stands_in_memory_once_more_and_no_more():
    made = memoryview(ole({"\1Ole10Native": packaged(b"a.exe", bytes(6 * MIB))}))
    tracemalloc.start()
    [member] = oles.members(made, Budget(Bounds(**NO_BOUND)))
    assert len(member.stream.peek(8 * MIB)) == 6 * MIB
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 11 * MIB  # it was four times
