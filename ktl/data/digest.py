"""What a photo is, whatever it is called and wherever it is: a digest of its encoded bytes."""

import hashlib

DIGEST_BYTES = 16


def photo_digest(encoded: bytes) -> bytes:
    """The first 16 bytes of the SHA-256 of an encoded photo."""
    return hashlib.sha256(encoded).digest()[:DIGEST_BYTES]
