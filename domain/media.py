"""What the first bytes of a content say about its type: content that lies about itself is refused.

Only types whose files all begin in a known way are in the table; of the others nothing is claimed. A page or a drawing
with a program inside therefore never passes for a picture, and ``application/octet-stream`` takes anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from domain.errors import Fault, Invalid

__all__ = ["HEAD_BYTES", "base_type", "is_json", "is_text", "require_type"]

HEAD_BYTES = 64
"""How many bytes of a content tell its type."""

_Signature = tuple[tuple[int, bytes], ...]
"""What must stand where: pairs of offset and bytes, all of them."""


def _at_start(*beginnings: bytes) -> tuple[_Signature, ...]:
    return tuple(((0, beginning),) for beginning in beginnings)


def _riff(kind: bytes) -> tuple[_Signature, ...]:
    return (((0, b"RIFF"), (8, kind)),)


def _brands(*brands: bytes) -> tuple[_Signature, ...]:
    return tuple(((4, b"ftyp"), (8, brand)) for brand in brands)


_PNG = _at_start(b"\x89PNG\r\n\x1a\n")
_JPEG = _at_start(b"\xff\xd8\xff")
_TIFF = _at_start(b"II*\0", b"MM\0*")
_MP3 = _at_start(b"ID3", *(bytes((0xFF, second)) for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2)))
_AAC = _at_start(b"\xff\xf1", b"\xff\xf9", b"ID3")
_OGG = _at_start(b"OggS")
_ISO = (((4, b"ftyp"),),)
_QUICKTIME = (*_ISO, *(((4, box),) for box in (b"moov", b"mdat", b"free", b"wide", b"skip")))
_EBML = _at_start(b"\x1a\x45\xdf\xa3")
_ZIP = _at_start(b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_GZIP = _at_start(b"\x1f\x8b\x08")

_SIGNATURES: Mapping[str, tuple[_Signature, ...]] = {
    "image/png": _PNG,
    "image/apng": _PNG,
    "image/jpeg": _JPEG,
    "image/jpg": _JPEG,
    "image/gif": _at_start(b"GIF87a", b"GIF89a"),
    "image/webp": _riff(b"WEBP"),
    "image/bmp": _at_start(b"BM"),
    "image/tiff": _TIFF,
    "image/x-icon": _at_start(b"\0\0\x01\0", b"\0\0\x02\0"),
    "image/vnd.microsoft.icon": _at_start(b"\0\0\x01\0", b"\0\0\x02\0"),
    "image/avif": _brands(b"avif", b"avis", b"mif1"),
    "image/heic": _brands(b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"),
    "image/heif": _brands(b"heic", b"heix", b"mif1", b"msf1"),
    "image/jxl": _at_start(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "audio/mpeg": _MP3,
    "audio/mp3": _MP3,
    "audio/aac": _AAC,
    "audio/wav": _riff(b"WAVE"),
    "audio/x-wav": _riff(b"WAVE"),
    "audio/wave": _riff(b"WAVE"),
    "audio/flac": _at_start(b"fLaC"),
    "audio/ogg": _OGG,
    "audio/opus": _OGG,
    "audio/mp4": _ISO,
    "audio/x-m4a": _ISO,
    "audio/webm": _EBML,
    "audio/midi": _at_start(b"MThd"),
    "audio/aiff": (((0, b"FORM"), (8, b"AIFF")), ((0, b"FORM"), (8, b"AIFC"))),
    "video/mp4": _ISO,
    "video/quicktime": _QUICKTIME,
    "video/webm": _EBML,
    "video/x-matroska": _EBML,
    "video/ogg": _OGG,
    "video/x-msvideo": _riff(b"AVI "),
    "application/ogg": _OGG,
    "application/pdf": _at_start(b"%PDF-"),
    "application/zip": _ZIP,
    "application/epub+zip": _ZIP,
    "application/java-archive": _ZIP,
    "application/vnd.oasis.opendocument.text": _ZIP,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": _ZIP,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": _ZIP,
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": _ZIP,
    "application/gzip": _GZIP,
    "application/x-gzip": _GZIP,
    "application/zstd": _at_start(b"\x28\xb5\x2f\xfd"),
    "application/x-bzip2": _at_start(b"BZh"),
    "application/x-xz": _at_start(b"\xfd7zXZ\0"),
    "application/x-7z-compressed": _at_start(b"7z\xbc\xaf\x27\x1c"),
    "application/vnd.rar": _at_start(b"Rar!\x1a\x07"),
    "application/wasm": _at_start(b"\0asm"),
    "font/woff": _at_start(b"wOFF"),
    "font/woff2": _at_start(b"wOF2"),
    "font/ttf": _at_start(b"\0\x01\0\0", b"true"),
    "font/otf": _at_start(b"OTTO"),
}


def base_type(content_type: str) -> str:
    """Return a media type without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_text(content_type: str) -> bool:
    """Whether content of this type is text in UTF-8, as far as its name says."""
    _, _, parameters = content_type.lower().partition(";")
    charset = next((p.partition("=")[2].strip(' "') for p in parameters.split(";") if "charset=" in p), "utf-8")
    return base_type(content_type).startswith("text/") and charset in {"utf-8", "utf8", "us-ascii"}


def is_json(content_type: str) -> bool:
    """Whether content of this type is JSON."""
    base = base_type(content_type)
    return base == "application/json" or base.endswith("+json")


def require_type(content_type: str, head: bytes) -> None:
    """Raise Invalid ``content_type_mismatch`` if a content that begins with ``head`` cannot be of its declared type."""
    known = _SIGNATURES.get(base_type(content_type))
    if known is None or any(_bears(head, signature) for signature in known):
        return
    detail = f"The content does not begin as {base_type(content_type)} does."
    fault = Fault("/content_type", "content_type_mismatch", detail)
    raise Invalid(detail, code="content_type_mismatch", faults=[fault])


def _bears(head: bytes, signature: _Signature) -> bool:
    return all(head[offset : offset + len(wanted)] == wanted for offset, wanted in signature)
