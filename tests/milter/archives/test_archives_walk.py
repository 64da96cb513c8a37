"""Archives: every file in them is found, whatever tricks hide it; what cannot be looked at is said."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
from binascii import b2a_uu

import pytest

from elemta_milter.archives import Bounds, Budget, Walk
from elemta_milter.archives.kinds import archive_kind
from elemta_milter.archives.oles import Ole
from harness.archives import (
    AES,
    COPY,
    LZMA2,
    PPMD,
    PROGRAM,
    ole,
    onenote,
    packaged,
    rar4,
    rar5,
    rtf,
    sevenzipped,
    tarred,
    tnef,
    zipped,
)

EVIL = ("evil.exe", PROGRAM)
NOTE = ("notes/note.txt", b"hello " * 200)
XZ = 95  # as a method of zip
needs_bsdtar = pytest.mark.skipif(not shutil.which("bsdtar"), reason="bsdtar is not installed")


def walked(data, name="x", **bounds):
    walk = Walk(Budget(Bounds(**bounds)))
    found = [(entry.path, bytes(entry.data)) for entry in walk.over(data, name)]
    return walk, dict(found[1:])


LAWFUL = {
    "stored.zip": zipped(EVIL, NOTE, method=zipfile.ZIP_STORED),
    "deflated.zip": zipped(EVIL, NOTE),
    "bzip2.zip": zipped(EVIL, NOTE, method=zipfile.ZIP_BZIP2),
    "lzma.zip": zipped(EVIL, NOTE, method=zipfile.ZIP_LZMA),
    "junk-before.zip": b"junk" * 999 + zipped(EVIL, NOTE),
    "junk-behind.zip": zipped(EVIL, NOTE) + b"junk" * 999,
    "picture.zip": b"\x89PNG\r\n\x1a\n" + bytes(500) + zipped(EVIL, NOTE),
    "pax.tar": tarred(EVIL, NOTE),
    "gnu.tar": tarred(EVIL, NOTE, form=tarfile.GNU_FORMAT),
    "ustar.tar": tarred(EVIL, NOTE, form=tarfile.USTAR_FORMAT),
    "lzma2.7z": sevenzipped(EVIL, NOTE),
    "copy.7z": sevenzipped(EVIL, NOTE, coder=COPY),
    "packed-header.7z": sevenzipped(EVIL, NOTE, header_coder=LZMA2),
    "old.rar": rar4((b"evil.exe", PROGRAM, 0, 0x30), (b"notes\\note.txt", NOTE[1], 0, 0x30)),
    "new.rar": rar5((b"evil.exe", PROGRAM, False, 0), (b"notes/note.txt", NOTE[1], False, 0)),
}


@pytest.mark.parametrize("name", LAWFUL)
def test_every_file_is_found_with_its_content(name):
    walk, found = walked(LAWFUL[name], name)
    assert {path.replace("\\", "/"): data for path, data in found.items()} == {
        f"{name}: evil.exe": PROGRAM,
        f"{name}: notes/note.txt": NOTE[1],
    }
    assert (walk.encrypted, walk.broken, walk.unread, walk.excess) == ([], [], [], ())


@pytest.mark.parametrize(
    ("name", "pack", "inner"),
    [
        ("evil.exe.gz", gzip.compress, "evil.exe"),
        ("evil.exe.bz2", bz2.compress, "evil.exe"),
        ("evil.exe.xz", lzma.compress, "evil.exe"),
        ("evil.exe.lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE), "evil.exe"),
        ("evil.tgz", lambda data: gzip.compress(data, mtime=0), "evil.tar"),
        ("invoice", gzip.compress, "invoice"),
        ("two.gz", lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]), "two"),
        ("junk.gz", lambda data: gzip.compress(data) + b"\r\n", "junk"),
    ],
)
def test_a_single_file_is_unpacked_and_named(name, pack, inner):
    walk, found = walked(pack(PROGRAM), name)
    assert found == {f"{name}: {inner}": PROGRAM}
    assert walk.broken == []


def test_the_name_that_gzip_stores_counts_and_the_other_too():
    packed = gzip.compress(PROGRAM)
    named = packed[:3] + b"\x08" + packed[4:10] + b"evil.exe\0" + packed[10:]
    *_, entry = Walk(Budget(Bounds())).over(named, "picture.jpg.gz")
    assert entry.names == ("evil.exe", "picture.jpg")


def test_a_compressed_tar_longer_than_what_is_held_is_read_to_its_end():
    big = ("a.bin", bytes(range(256)) * 40_000)
    packed = tarred(big, EVIL, mode="w:gz")
    walk, found = walked(packed, "x.tgz", held=1 << 20, ratio=10**9)
    assert found["x.tgz: x.tar: evil.exe"] == PROGRAM
    assert walk.excess == ()


def test_archives_in_archives_are_opened_so_deep_and_no_deeper():
    nested = zipped(EVIL)
    for depth in range(4):
        nested = zipped((f"{depth}.zip", nested))
    walk, found = walked(nested, "x.zip", depth=5)
    assert list(found)[-1] == "x.zip: 3.zip: 2.zip: 1.zip: 0.zip: evil.exe"
    assert (walk.depth, walk.excess) == (5, ())
    walk, found = walked(nested, "x.zip", depth=3)
    assert list(found)[-1] == "x.zip: 3.zip: 2.zip: 1.zip"
    assert walk.excess == ("depth 3",)


def test_a_file_that_the_central_directory_does_not_name_is_found():
    hidden, plain = zipped(EVIL), zipped(NOTE)
    walk, found = walked(hidden[: hidden.index(b"PK\1\2")] + plain, "x.zip")
    assert set(found) == {"x.zip: notes/note.txt", "x.zip: evil.exe"}
    assert walk.broken == ["x.zip: evil.exe: the central directory does not name it"]


def test_headers_that_give_different_names_are_both_believed():
    made = zipped(("good.txt", PROGRAM))
    walk = Walk(Budget(Bounds()))
    *_, entry = walk.over(made.replace(b"good.txt", b"evil.exe", 1), "x.zip")
    assert entry.names == ("good.txt", "evil.exe")
    assert walk.broken == ["x.zip: good.txt: its two headers give different names"]


def test_headers_that_contradict_each_other_are_told():
    made = bytearray(zipped(NOTE))
    made[8:10] = b"\0\0"  # the local header says: stored
    assert walked(bytes(made))[0].broken == ["x: notes/note.txt: its two headers give different methods"]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, XZ], ids=str
)
def test_a_file_that_ends_before_its_octets_do_hides_none(method):
    """Programs that go by another end than the last, or by the headers before each file, see the second one."""
    packed = zipped(("a", b"good"), method=zipfile.ZIP_DEFLATED if method == XZ else method)
    content = lzma.compress(b"good") if method == XZ else packed[31 : packed.index(b"PK\1\2")]
    hidden = zipped(EVIL)
    size = struct.pack("<L", len(content) + len(hidden)) + struct.pack("<L", 4)
    local = b"PK\3\4" + struct.pack("<HHHLL", 20, 0, method, 0, 0) + size + struct.pack("<HH", 1, 0) + b"a"
    central = b"PK\1\2" + struct.pack("<H", 20) + local[4:30] + bytes(14) + b"a"
    if method == zipfile.ZIP_STORED:
        local, central = (each.replace(size, size[:4] * 2) for each in (local, central))
    before = local + content + hidden
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(central), len(before), 0)
    walk, found = walked(before + central + end, "x.zip")
    assert walk.broken == ["x.zip: a: there is more behind its end"] or found["x.zip: a: evil.exe"] == PROGRAM


def test_one_name_twice_is_two_files():
    with pytest.warns(UserWarning, match="Duplicate name"):
        made = zipped(("a.txt", b"good"), ("a.txt", PROGRAM))
    entries = list(Walk(Budget(Bounds())).over(made, "x"))
    assert [bytes(entry.data) for entry in entries[1:]] == [b"good", PROGRAM]


def test_an_archive_without_its_end_is_broken_and_what_is_there_is_seen():
    made = zipped(EVIL, NOTE)
    walk, found = walked(made[: made.index(b"PK\1\2")], "x.zip")
    assert found["x.zip: evil.exe"] == PROGRAM
    assert walk.broken == ["x.zip: it has no central directory"]


@pytest.mark.parametrize("name", ["deflated.zip", "pax.tar", "lzma2.7z", "old.rar", "new.rar"])
def test_an_archive_that_was_cut_is_broken(name):
    made = LAWFUL[name].rstrip(b"\0")
    walk, _ = walked(made[: len(made) * 2 // 3], name)
    assert walk.broken
    assert walked(gzip.compress(bytes(range(256)) * 9)[:-30], "x.gz")[0].broken == ["x.gz: x: it ends in the middle"]


def test_zip64_sizes_are_read():
    made = zipped(("a.txt", b"hello"), method=zipfile.ZIP_STORED)
    central = made.index(b"PK\1\2")
    extra = struct.pack("<HHQQ", 1, 16, 5, 5)
    record = bytearray(made[central : made.index(b"PK\5\6")])
    record[20:28] = b"\xff" * 8
    record[30:32] = struct.pack("<H", len(extra))
    whole = made[:central] + record + extra
    end64 = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, len(record) + len(extra), central)
    locator = b"PK\6\7" + struct.pack("<LQL", 0, len(whole), 1)
    whole += end64 + locator + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert walked(whole)[1] == {"x: a.txt": b"hello"}


@pytest.mark.parametrize(
    ("made", "where"),
    [
        (zipped(EVIL).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"), "x: evil.exe"),
        (sevenzipped(EVIL, coder=AES), "x: evil.exe"),
        (sevenzipped(EVIL, header_coder=AES), "x"),
        (rar4((b"evil.exe", b"", 4, 0x33)), "x: evil.exe"),
        (rar4(encrypted_headers=True), "x"),
        (rar5((b"evil.exe", b"", True, 3)), "x: evil.exe"),
        (rar5(encrypted_headers=True), "x"),
    ],
)
def test_what_is_encrypted_is_told_and_named_where_names_can_be_read(made, where):
    walk, found = walked(made)
    assert walk.encrypted == [where]
    assert list(found) == ([where] if ":" in where else [])


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (b"MSCF\0\0\0\0" + bytes(100), "cab"),
        (b"\x60\xea\x2b\0\x22\x0b\1\2\x10" + bytes(100), "arj"),
        (b"\x12\x34-lh5-" + bytes(100), "lha"),
        (bytes(7) + b"**ACE**" + bytes(100), "ace"),
        (bytes(0x8001) + b"CD001" + bytes(100), "iso"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"\x78\x9f\x3e\x22" + bytes(100), "tnef"),
        (b"\0\5\x16\0" + bytes(100), "applesingle"),
        (b"\xed\xab\xee\xdb\3\0" + bytes(100), "rpm"),
        (b"KDMV\1\0\0\0" + bytes(100), "vmdk"),
        (b"\xeb\x3c\x90MSDOS5.0".ljust(54, b"\0") + b"FAT12   ".ljust(456, b"\0") + b"\x55\xaa", "disk"),
        (b"\xeb\x52\x90NTFS    ".ljust(510, b"\0") + b"\x55\xaa", "disk"),
        (b"\xeb\x3c\x90MSDOS5.0".ljust(510, b"\0") + b"\x55\xaa", ""),
        (b"\xc7\x71".ljust(20, b"\0") + b"\5\0".ljust(6, b"\0") + b"a.js\0", "cpio"),
        (b"\xc7\x71".ljust(20, b"\0") + b"\5\0".ljust(6, b"\0") + b"a.js.", ""),
        (b"(This file must be converted with BinHex 4.0)\r\n:x:", "binhex"),
    ],
)
def test_archives_that_are_not_opened_are_recognised(made, kind):
    assert archive_kind(made) == kind


@pytest.mark.parametrize("make", [rar4, rar5])
def test_a_stream_of_ntfs_is_a_file(make):
    kind = 0x30 if make is rar4 else 0
    made = make((b"a.txt", b"x", 0, kind), streams=[(":..\\..\\Startup\\b.lnk", b"L"), (":Zone.Identifier", b"3")])
    walk, found = walked(made)
    assert found == {"x: a.txt": b"x", "x: :..\\..\\Startup\\b.lnk": b"L", "x: :Zone.Identifier": b"3"}
    assert (walk.broken, walk.unread) == ([], [])


def test_a_stream_of_ntfs_with_long_sizes_is_a_file():
    made = rar4((b"a.txt", b"x", 0, 0x30), streams=[(":b.lnk", b"L")], long=True)
    assert walked(made)[1] == {"x: a.txt": b"x", "x: :b.lnk": b"L"}


def test_an_image_of_macos_is_told_by_its_end():
    assert walked(bytes(5000) + b"koly" + bytes(508))[0].unread == ["x: an archive that is not opened (dmg)"]


@needs_bsdtar
def test_an_old_cpio_archive(tmp_path):
    (tmp_path / "evil.exe").write_bytes(PROGRAM)
    command = ["bsdtar", "-c", "-f", "-", "--format=bin", "-C", tmp_path, "evil.exe"]
    assert walked(subprocess.run(command, check=True, capture_output=True).stdout)[1] == {"x: evil.exe": PROGRAM}


def test_what_no_program_can_open_is_told(monkeypatch):
    monkeypatch.setattr("elemta_milter.archives.foreign.installed", lambda: False)
    assert walked(b"MSCF\0\0\0\0" + bytes(100))[0].unread == ["x: an archive that is not opened (cab)"]
    walk, found = walked(rar5((b"evil.exe", b"?", False, 3)))
    assert list(found) == ["x: evil.exe"]
    assert walk.unread == ["x: evil.exe: packed by RAR"]
    walk, found = walked(sevenzipped(EVIL, coder=PPMD))
    assert list(found) == ["x: evil.exe"]
    assert walk.unread == ["x: evil.exe: packed by coders that are not read here"]


@needs_bsdtar
@pytest.mark.parametrize("form", ["iso9660", "xar", "newc"])
def test_libarchive_opens_what_we_do_not(tmp_path, form):
    (tmp_path / "evil.exe").write_bytes(PROGRAM)
    made = subprocess.run(
        ["bsdtar", "-c", "-f", "-", f"--format={form}", "-C", tmp_path, "evil.exe"], check=True, capture_output=True
    ).stdout
    walk, found = walked(made)
    assert found == {"x: evil.exe": PROGRAM}
    assert (walk.broken, walk.unread) == ([], [])


@needs_bsdtar
def test_an_iso_image_with_other_files_for_windows(tmp_path):
    (tmp_path / "read_me.txt").write_bytes(PROGRAM)
    command = ["bsdtar", "-c", "-f", "-", "--format=iso9660", "-C", tmp_path, "read_me.txt"]
    image = subprocess.run(command, check=True, capture_output=True).stdout
    other = image.replace("read_me.txt".encode("utf-16-be"), "program.exe".encode("utf-16-be"))
    walk, found = walked(other)
    assert found == {"x: read_me.txt": PROGRAM, "x: program.exe": PROGRAM}
    assert walk.unread == []
    walk, found = walked(image[: 19 * 2048] + b"\0BEA01\1".ljust(2048, b"\0") + b"\0NSR02\1" + image[20 * 2048 + 7 :])
    assert list(found) == ["x: read_me.txt"]
    assert walk.unread == ["x: a file system of UDF, which Windows prefers"]


@needs_bsdtar
def test_what_libarchive_cannot_read_is_broken():
    assert walked(b"MSCF\0\0\0\0" + bytes(100))[0].broken == ["x: not all of it can be read"]


def packed_by(program, form, data, tmp_path):
    """The tar archive `data` in another form, packed by a program that bsdtar knows."""
    made = tmp_path / "made"
    command = ["bsdtar", "-c", "-f", made, f"--{program}", f"--format={form}", "@-"]
    subprocess.run(command, input=data, check=True, capture_output=True)
    return made.read_bytes()


@needs_bsdtar
@pytest.mark.parametrize(("program", "suffix"), [("zstd", "zst"), ("lz4", "lz4"), ("compress", "Z")])
def test_a_single_file_that_libarchive_unpacks_is_named(tmp_path, program, suffix):
    walk, found = walked(packed_by(program, "ustar", tarred(EVIL), tmp_path), f"x.tar.{suffix}")
    assert found[f"x.tar.{suffix}: x.tar: evil.exe"] == PROGRAM
    assert (walk.broken, walk.archives) == ([], [archive_kind(packed_by(program, "ustar", b"", tmp_path)), "tar"])


@needs_bsdtar
def test_no_archive_reads_files_of_this_machine(tmp_path):
    """The format mtree names files whose content is taken from the disk; a pipe among them waits for ever."""
    secret, pipe = tmp_path / "secret", tmp_path / "pipe"
    secret.write_bytes(PROGRAM)
    os.mkfifo(pipe)
    made = f"./x type=file contents={secret} size={len(PROGRAM)}\n./y type=file contents={pipe} size=9\n".encode()
    for each in (b"#mtree\n" + made, b"./-lh5-a type=dir\n" + made):
        assert PROGRAM not in walked(each)[1].values()
        assert PROGRAM not in walked(_lz4(each))[1].values()
        assert PROGRAM not in walked(_uuencoded_cpio(each))[1].values()


def _lz4(data):
    """A frame of one block that is not packed (LZ4 Frame Format 1.6.3)."""
    return b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<L", len(data) | 1 << 31) + data + bytes(4)


def _uuencoded_cpio(data):
    """What begins like cpio, and holds a file for whoever looks for uuencode first."""
    lines = b"".join(b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    return b"070707\nbegin 644 x\n" + lines + b"`\nend\n"


def test_a_file_packed_into_a_document_is_found():
    document = ole({"\1Ole10Native": packaged(b"evil.exe", PROGRAM), "WordDocument": bytes(5000)})
    walk, found = walked(document, "x.doc")
    assert found == {"x.doc: evil.exe": PROGRAM}
    assert walk.archives == []
    inside = zipped(("[Content_Types].xml", b""), ("word/embeddings/oleObject1.bin", document))
    entries = list(Walk(Budget(Bounds())).over(inside, "x.docx"))
    assert [entry.name for entry in entries if not entry.document] == ["x.docx", "evil.exe"]


@pytest.mark.parametrize(
    ("tag", "name"),
    [("3707001F", "evil.exe".encode("utf-16-le")), ("3707001E", b"evil.exe"), ("3704001E", b"evil.exe\0")],
)
def test_attachments_of_an_outlook_message_are_found(tag, name):
    folder = "__attach_version1.0_#0/__substg1.0_"
    made = ole({f"{folder}37010102": PROGRAM, f"{folder}{tag}": name})
    entries = list(Walk(Budget(Bounds())).over(made, "x.msg"))
    assert [(entry.name, bytes(entry.data)) for entry in entries[1:]] == [("", PROGRAM), ("evil.exe", b"")]


def test_streams_of_a_compound_file_are_read_in_both_sizes():
    made = Ole(memoryview(ole({"Small": b"s" * 100, "Big": b"b" * 5000})))
    assert made.stream("small", 1000) == b"s" * 100
    assert made.stream("big", 9000) == b"b" * 5000
    assert made.stream("big", 10) == b"b" * 10
    assert made.stream("none", 10) == b""


def test_only_what_is_called_a_document_is_one():
    made = zipped(("[Content_Types].xml", b""), EVIL)
    assert [entry.document for entry in Walk(Budget(Bounds())).over(made, "x.docx")] == [False, True, True]
    assert not any(entry.document for entry in Walk(Budget(Bounds())).over(made, "x.zip"))


def test_a_part_of_a_multi_volume_archive_is_not_whole():
    walk, _ = walked(rar4((b"evil.exe", b"half", 2, 0x30)))
    assert walk.unread == ["x: evil.exe: a file that goes on in another volume"]


# ── two things at once ───────────────────────────────────────────────────────────────────────────────────

HIDDEN = zipped(EVIL)


@pytest.mark.parametrize(
    "outer",
    [
        gzip.compress(b"x" * 99),
        lzma.compress(b"x"),
        bz2.compress(b"x"),
        tarred(NOTE),
        tarred(NOTE, mode="w:gz"),
        sevenzipped(NOTE),
        rar4((b"a", b"x", 0, 0x30)),
        rar5((b"a", b"x", False, 0)),
        ole({"WordDocument": bytes(5000)}),
        b"\x78\x9f\x3e\x22" + bytes(50),
        b"%PDF-1.7\n",
    ],
)
def test_a_zip_archive_behind_another_thing_is_opened_too(outer):
    assert walked(outer + HIDDEN, "x.zip")[1]["x.zip: evil.exe"] == PROGRAM


@pytest.mark.parametrize("outer", [b"{\\rtf1 x}", ole({"WordDocument": bytes(5000)}), b"PK\5\6" + bytes(18)])
@pytest.mark.parametrize(
    ("name", "made"), [("x.rar", rar5((b"evil.exe", PROGRAM, False, 0))), ("x.7z", sevenzipped(("evil.exe", PROGRAM)))]
)
def test_so_is_another_archive_if_it_is_called_one(name, made, outer):
    assert walked(outer + made, name)[1][f"{name}: evil.exe"] == PROGRAM
    assert "x.doc: evil.exe" not in walked(outer + made, "x.doc")[1]  # as in a message with attachments


@pytest.mark.parametrize("packed", [gzip.compress(b"x"), lzma.compress(b"x"), bz2.compress(b"x"), tarred(NOTE)])
def test_what_stands_behind_the_end_of_a_stream_is_told(packed):
    walk, _ = walked(zipped(("a", packed + b"?" * 30)))
    assert any("there is more behind its end" in each for each in walk.broken)
    walk, _ = walked(packed + bytes(2000), "x")
    assert walk.broken == []


@pytest.mark.parametrize(
    ("made", "before"),
    [
        (rar4((b"evil.exe", PROGRAM, 0, 0x30)), b"junk" * 50),
        (rar5((b"evil.exe", PROGRAM, False, 0)), b"\x89PNG\r\n\x1a\n" + bytes(500)),
        (sevenzipped(EVIL), b"junk" * 50),
        (HIDDEN + bytes(70_000), b"junk" * 50),
    ],
)
def test_an_archive_with_junk_before_it_is_opened(made, before):
    assert walked(before + made)[1]["x: evil.exe"] == PROGRAM


def test_the_end_of_a_zip_archive_is_found_among_many_that_are_none():
    comment = b"PK\5\6" * 300
    made = HIDDEN[:-2] + struct.pack("<H", len(comment)) + comment
    assert walked(b"\x89PNG\r\n\x1a\n" + made)[1] == {"x: evil.exe": PROGRAM}


@pytest.mark.parametrize(
    "made", [rar5((b"evil.js", b"x", False, 0)), sevenzipped(("evil.js", b"x")), tarred(("evil.js", b"x"))]
)
def test_only_a_zip_archive_is_a_document(made):
    entries = list(Walk(Budget(Bounds())).over(made, "invoice.docx"))
    assert [(entry.name, entry.document) for entry in entries[1:]] == [("evil.js", False)]


def test_an_encrypted_file_that_is_called_like_a_folder_is_told():
    made = zipped(("evil.exe/", PROGRAM)).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
    walk, _ = walked(made)
    assert walk.encrypted == ["x: evil.exe/"]


def test_a_7z_archive_whose_first_header_was_wiped_out_is_broken():
    made = sevenzipped(EVIL)
    assert walked(made[:8] + bytes(24) + made[32:])[0].broken == ["x: its header is nowhere"]
    assert walked(made[:8] + bytes(24))[0].broken == []


def test_all_names_that_a_tar_archive_gives_count():
    made = bytearray(tarred(("é" * 10 + ".txt", PROGRAM)))
    at = 1024
    made[at : at + 100] = b"evil.exe".ljust(100, b"\0")
    made[at + 148 : at + 156] = b" " * 8
    made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    *_, entry = Walk(Budget(Bounds())).over(bytes(made), "x")
    assert entry.names == ("é" * 10 + ".txt", "evil.exe")


def _tar_header(name, kind, size, more=b""):
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")
    block[124:136], block[156:157] = b"%011o\0" % size, kind
    block[386 : 386 + len(more)] = more
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_sparse_file_of_old_with_more_places_than_its_header_has_room_for():
    more = bytearray(512)
    more[504] = 1
    block = _tar_header(b"evil.exe", b"S", len(PROGRAM), bytes(96) + b"\1")
    made = block + bytes(more) + bytes(512) + PROGRAM.ljust(512, b"\0") + bytes(1024)
    walk, found = walked(made)
    assert (found, walk.broken) == ({"x: evil.exe": PROGRAM}, [])


def test_a_link_with_content_is_read_in_two_ways():
    made = _tar_header(b"a", b"1", 1024) + tarred(NOTE)
    assert walked(made)[0].broken == ["x: a/: it is a link with content"]


def test_a_document_packed_into_an_old_document_is_found():
    inner = zipped(("[Content_Types].xml", b""), ("word/vbaProject.bin", b"x"))
    for name in ("Package", "CONTENTS"):
        assert walked(ole({f"ObjectPool/{name}": inner}), "x.doc")[1]["x.doc: (unnamed)"] == inner


# ── files of Outlook and Word ────────────────────────────────────────────────────────────────────────────


def test_files_in_a_winmail_dat_are_found_with_all_their_names():
    inner = tnef((b"INNER~1.EXE", "inner.exe", PROGRAM))
    made = tnef((b"EVIL~1.EXE", "evil plan.exe", PROGRAM), (b"a.txt", "a.txt", b"x"), embedded=inner)
    walk = Walk(Budget(Bounds()))
    entries = list(walk.over(made, "winmail.dat"))
    assert [(entry.names, bytes(entry.data)) for entry in entries[1:]] == [
        (("EVIL~1.EXE", "evil plan.exe"), PROGRAM),
        (("a.txt",), b"x"),
        (("",), inner),
        (("INNER~1.EXE", "inner.exe"), PROGRAM),
    ]
    assert (walk.broken, walk.unread, walk.archives) == ([], [], ["tnef", "tnef"])


def test_a_file_in_a_property_is_found():
    assert walked(tnef(binary=PROGRAM))[1] == {"x: (unnamed)": PROGRAM}


def test_one_that_was_cut_is_broken():
    walk, found = walked(tnef((b"evil.exe", "evil.exe", PROGRAM))[:-20])
    assert walk.broken == ["x: evil.exe: its properties cannot be read", "x: it ends in the middle"]
    assert "x: evil.exe" in found


@pytest.mark.parametrize(
    "between",
    [b"", b"\r\n \t", b"{}", b"{\\*\\foo 41{41}}", b"\\'7a", b"\\foo1 ", b"{\\foo }\\par\n", b"\\bin0 ", b"{\\foo{}}"],
)
def test_files_packed_into_rtf_are_found_however_it_is_written(between):
    made = rtf(b"Package", packaged(b"evil.exe", PROGRAM)[4:], between)
    walk, found = walked(made, "x.doc")
    assert (found, walk.archives, walk.broken) == ({"x.doc: evil.exe": PROGRAM}, [], [])


def test_and_documents_in_it():
    inner = ole({"\1Ole10Native": packaged(b"evil.exe", PROGRAM)})
    assert walked(rtf(b"Word.Document.8", inner), "x.rtf")[1]["x.rtf: (unnamed): evil.exe"] == PROGRAM
    assert walked(b"{\\rtf1{\\*\\objdata 4d5a}{\\objdata }", "x.rtf")[1] == {"x.rtf: (unnamed)": b"MZ"}


def test_files_in_a_onenote_section_are_found_with_their_extensions():
    made = onenote((".png", b"picture"), (".hta", b"<hta:application>"), ("", PROGRAM))
    walk, found = walked(made, "x.one")
    assert found == {
        "x.one: object1.png": b"picture",
        "x.one: object2.hta": b"<hta:application>",
        "x.one: object3": PROGRAM,
    }
    assert (walk.archives, walk.broken, walk.unread) == ([], [], [])


def test_one_that_was_cut_short_is_broken():
    made = onenote((".exe", PROGRAM))
    walk, _ = walked(made[: made.index(PROGRAM) + 20], "x.one")
    assert walk.broken == ["x.one: object1: it ends before its end"]
