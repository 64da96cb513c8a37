"""Families: does a file's content contradict its name, or the type that its part declares?

Only families are compared, and only where both are known: a PNG picture called .jpg is no contradiction, a program
called .pdf is one.  Text contradicts nothing: too many things are text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from elemta_milter.contents.names import extensions
from elemta_milter.contents.sniff import RUNNING

_BY_EXTENSION: Mapping[str, str] = {
    extension: family
    for family, words in {
        "pdf": "pdf",
        "image": "jpg jpeg jpe png gif bmp tif tiff webp heic heif ico psd",
        "audio": "mp3 wav m4a ogg flac aac wma",
        "video": "mp4 mov avi mkv mpg mpeg wmv webm",
        "document": "doc docx docm dot dotx dotm xls xlsx xlsm xlsb xlt ppt pptx pptm pps ppsx odt ods odp rtf",
        "archive": "zip rar 7z gz tgz tar bz2 xz cab iso arj lha lzh ace",
        "program": "exe scr com pif cpl dll sys msi bat cmd ps1 lnk hta url chm sh class",
        "text": "txt csv log ics vcf md json yaml asc",
    }.items()
    for extension in words.split()
}
_DOCUMENTS = tuple(
    f"application/{each}" for each in ("vnd.openxmlformats", "vnd.oasis.opendocument", "vnd.ms-", "msword")
)
_BY_MINOR: Mapping[str, str] = {
    minor: family
    for family, words in {
        "pdf": "pdf x-pdf",
        "text": "html xml svg+xml",
        "document": "x-ole-storage rtf onenote CDFV2",
        "archive": "zip gzip x-7z-compressed vnd.rar x-rar x-rar-compressed x-tar x-gzip x-bzip2 x-bz2 x-xz x-iso x-arj"
        " x-lha x-ace x-compressed x-zip-compressed vnd.ms-cab-compressed",
    }.items()
    for minor in words.split()
}
_KIN = frozenset({("archive", "document"), ("document", "text"), ("audio", "video")})
"""Pairs that are no contradiction: what programs export as .xls is often text, a .docx is a zip archive."""


def contradicts(sniffed: str, names: Iterable[str], declared: str) -> bool:
    """Whether the content is of another family than its name says; without a known name, than its part says."""
    is_ = family(sniffed)
    named = [_BY_EXTENSION[each] for each in extensions(names) if each in _BY_EXTENSION]
    said = named or [each for each in (family(declared),) if each]
    if not is_ or is_ == "text" or not said:
        return False
    return not any(is_ == each or tuple(sorted((is_, each))) in _KIN for each in said)


def family(media_type: str) -> str:
    """Its family, "" where that says nothing."""
    major, _, minor = media_type.partition("/")
    if media_type in RUNNING:
        return "program"
    if minor in _BY_MINOR:
        return _BY_MINOR[minor]
    if major in ("image", "audio", "video", "text"):
        return major
    return "document" if media_type.startswith(_DOCUMENTS) else ""
