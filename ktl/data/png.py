"""What of a PNG file its pixels need: all else may be damaged, or larger than Pillow reads, and viewers show it."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Names of texts that may say how the photo is to be turned."""

_LONGEST_TEXT = 2**20
"""Bytes; Pillow reads no longer one."""


def essence(encoded: bytes) -> bytes:
    """The file without what its pixels do not need: colour profiles, texts, and what is damaged or unknown.

    What says how the photo is to be turned stays. The file may be cut anywhere.
    """
    return SIGNATURE + b"".join(chunk for kind, data, chunk in _chunks(encoded) if _is_needed(kind, data, chunk))


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, data and all bytes of each chunk; the last one may be cut."""
    at = len(SIGNATURE)
    while at + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, at)
        end = at + 8 + length
        yield kind, encoded[at + 8 : end], encoded[at : end + 4]
        at = end + 4


def _is_needed(kind: bytes, data: bytes, chunk: bytes) -> bool:
    if not kind[0] & 0x20:  # a capital letter: no decoder may leave it out
        return True
    if chunk[-4:] != struct.pack(">I", zlib.crc32(kind + data)):
        return False
    return kind in (b"tRNS", b"eXIf") or (kind in (b"iTXt", b"zTXt", b"tEXt") and _says_orientation(kind, data))


def _says_orientation(kind: bytes, data: bytes) -> bool:
    name = next((name for name in _ORIENTATION if data.startswith(name)), None)
    if name is None:
        return False
    compressed = {b"tEXt": None, b"zTXt": data[len(name) + 1 :], b"iTXt": data}[kind]
    if compressed is data:  # its flag, method, language and translated name come first
        parts = data[len(name) + 2 :].split(b"\0", 2)
        compressed = parts[-1] if data[len(name) : len(name) + 1] == b"\1" else None
    if compressed is None:
        return len(data) <= _LONGEST_TEXT
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(compressed, _LONGEST_TEXT)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail
