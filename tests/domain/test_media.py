"""Content that lies about its type is refused; of types without a signature nothing is claimed."""

from __future__ import annotations

import pytest

from domain.errors import Invalid
from domain.media import is_json, is_text, require_type

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 24
GENUINE = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "image/gif": b"GIF89a\x01\0",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "image/avif": b"\0\0\0\x1cftypavif\0\0\0\0",
    "image/heic": b"\0\0\0\x1cftypheic\0\0\0\0",
    "audio/mpeg": b"ID3\x04\0\0",
    "audio/wav": b"RIFF\x10\0\0\0WAVEfmt ",
    "audio/flac": b"fLaC\0\0",
    "audio/ogg": b"OggS\0\x02",
    "video/mp4": b"\0\0\0\x20ftypisom\0\0\x02\0",
    "video/webm": b"\x1a\x45\xdf\xa3\x9f",
    "application/pdf": b"%PDF-1.7\n",
    "application/zip": b"PK\x03\x04\x14\0",
    "application/gzip": b"\x1f\x8b\x08\0",
}


@pytest.mark.parametrize("content_type", sorted(GENUINE))
def test_what_begins_as_its_type_does_is_accepted(content_type: str) -> None:
    require_type(content_type, GENUINE[content_type])
    require_type(f"{content_type.upper()} ; name=x", GENUINE[content_type])


@pytest.mark.parametrize("content_type", sorted(GENUINE))
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"<!doctype html><script>alert(1)</script>", id="html"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', id="svg"),
        pytest.param(b"MZ\x90\0", id="program"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_pages_and_programs_pass_for_nothing_else(content_type: str, head: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        require_type(content_type, head)
    assert caught.value.problem_code == "content_type_mismatch"
    assert caught.value.faults[0].pointer == "/content_type"


def test_no_genuine_file_passes_for_another_type_of_the_table() -> None:
    containers = {"image/avif", "image/heic", "video/mp4"}  # all three are ISO files: an mp4 may hold any brand
    for content_type, head in GENUINE.items():
        for other in GENUINE.keys() - {content_type} - (containers if content_type in containers else set()):
            with pytest.raises(Invalid):
                require_type(other, head)


@pytest.mark.parametrize(
    "content_type", ["application/octet-stream", "application/x-own", "model/gltf-binary", "text/csv"]
)
def test_types_without_a_signature_take_anything(content_type: str) -> None:
    for head in (PNG, b"", b"<html>"):
        require_type(content_type, head)


def test_text_and_json_are_known_by_name() -> None:
    assert is_text("text/markdown")
    assert is_text('TEXT/plain; format=flowed; Charset="UTF-8"')
    assert not is_text("text/plain; charset=iso-8859-1")
    assert not is_text("application/json")
    assert is_json("application/geo+json; x=y")
    assert is_json("application/json")
    assert not is_json("text/json5")
