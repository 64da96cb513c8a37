"""Names: which extensions does a file name have, for the program that will open it and for the person who reads it?

A name is cleaned before its extension is read: of characters that turn the direction of writing or cannot be seen, of
folders, of dots and blanks at its end (Windows drops them), of what follows a NUL or names a stream of NTFS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""What turns the direction of writing (Unicode Standard Annex 9, section 2): `exe.fdp` is read for `pdf.exe`."""
HIDDEN = "\u200b\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u180e\u115f\u1160\u3164\uffa0"
"""What is not seen, and has no use in a file name."""
_JOINERS = "\u200c\u200d\u200e\u200f\u061c"  # of use in some scripts and in emoji, so no trick; not seen either
_REMOVED = re.compile(f"[{TURNING}{HIDDEN}{_JOINERS}\x01-\x1f\x7f-\x9f]")
_TRICKS = re.compile(f"[{TURNING}{HIDDEN}\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_GAP = re.compile(r"\s{8}\S*$")
_FORBIDDEN = re.compile(r'["*<>?|]')
"""What no file may be called on Windows: some programs drop it."""
_END = re.compile(r"(?<![\s.])[\s.]+\Z")
_LONGEST = 32

RUNNING = frozenset(
    "exe com scr pif cpl msi msp mst msix appx bat cmd ps1 psm1 ps1xml psc1 js jse mjs vb vbs vbe vbscript ws wsf wsc"  # noqa: SIM905
    " wsh hta lnk url scf reg inf jar class jnlp chm dll sys drv ocx gadget application appref-ms msc sct shb shs sh"
    " py pyc pyw pyz pyzw pl csh ksh bash zsh vbp slk iqy oqy rqy hlp msu diagcab theme xbap rdp udl wsb ade adp mde"
    " accde fxp prg xla xlam ppa ppam desktop fileloc inetloc webloc workflow terminal"
    " app command apk deb rpm dmg pkg iso img vhd vhdx xll wll library-ms search-ms settingcontent-ms website one"
    " htm html shtml xhtml mht mhtml svg xht".split()
)
"""Extensions of what runs, mounts or brings scripts when it is opened."""
MAILS = frozenset({"eml", "nws", "mht", "mhtml"})
"""Extensions of files that are messages."""
UUENCODED = frozenset({"uu", "uue"})
"""Extensions of texts that are unpacked to the files in them."""
READING = frozenset(
    "pdf doc docx docm dot dotx xls xlsx xlsm xlsb csv ppt pptx pptm pps ppsx odt ods odp rtf txt log eml msg ics vcf"  # noqa: SIM905
    " jpg jpeg png gif bmp tif tiff webp heic svg psd mp3 wav m4a ogg mp4 mov avi mkv mpg mpeg wmv xml json yaml md"
    " zip rar 7z gz tar".split()
)
"""Extensions of what is only read, as people believe."""


def extensions(names: Iterable[str]) -> tuple[str, ...]:
    """The last extension of each name, lower case, without its dot; each once."""
    return tuple(dict.fromkeys(each for name in names for one in _readings(name) if (each := _parts(one)[1])))


def is_double(name: str) -> bool:
    """Whether it looks like something to read and is something to run: "invoice.pdf.exe"."""
    for one in _readings(name):
        stem, extension = _parts(one)
        before = _parts(stem)[1]
        if (extension in RUNNING or extension.startswith("{")) and before in READING and before != extension:
            return True
    return False


def is_tricky(name: str) -> bool:
    """Whether it holds characters that make it look like another name, or hides its end behind blanks."""
    return bool(_TRICKS.search(name) or _GAP.search(name))


def _readings(name: str) -> list[str]:
    """The name of the file, as different programs take it."""
    base = next((each for each in reversed(re.split(r"[/\\]", name)) if each.strip(". ")), "")
    start = base.split("\0")[0]
    readings = [base.replace("\0", ""), start, start.split(":")[0]]
    if not base.isascii():
        readings.append(unicodedata.normalize("NFKC", base))  # Windows takes the nearest letter where it has no other
    if _FORBIDDEN.search(base):
        readings.append(_FORBIDDEN.sub("", base))
    return list(dict.fromkeys(_END.sub("", _REMOVED.sub("", each)) for each in readings))


def _parts(name: str) -> tuple[str, str]:
    """Before and after the last dot; no extension where that is no word."""
    stem, dot, extension = name.rpartition(".")
    extension = extension.strip().lower()
    if not dot or not extension or len(extension) > _LONGEST + 8 or " " in extension:
        return name, ""
    return stem.rstrip(), extension
