"""What kind of file a blob is, by its first bytes. Pure.

The bytes decide, never a name or what the sender says: a blob is known by its content alone, and whoever opens it must
not be shown something else than what it is.
"""

from __future__ import annotations

HEAD_BYTES = 64
"""So many first bytes tell."""
UNKNOWN = "application/octet-stream"

_BEGINNINGS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_ISO_IMAGES = {b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heic"}
_SUFFIXES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "application/pdf": ".pdf",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "audio/mp4": ".m4a",
    "video/webm": ".webm",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
}
EVIDENCE = frozenset(_SUFFIXES)
"""Pictures, speech, video and documents. None of them is active content: no HTML, no SVG, no script, no archive."""


def media_type(head: bytes) -> str:
    """The type by the first `HEAD_BYTES`; `UNKNOWN` when they tell nothing."""
    for beginning, found in _BEGINNINGS:
        if head.startswith(beginning):
            return found
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":  # ISO 14496-12: the major brand says what the boxes hold
        brand = head[8:12]
        if brand in _ISO_IMAGES:
            return _ISO_IMAGES[brand]
        return {b"M4A ": "audio/mp4", b"qt  ": "video/quicktime"}.get(brand, "video/mp4")
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 == 0xE2:  # frame sync, layer III
        return "audio/mpeg"
    return UNKNOWN


def safe_headers(sha256: str, kind: str) -> dict[str, str]:
    """Fields of an answer that carries a blob: nothing in it can run, whatever it is.

    Pictures, speech and video are shown; everything else is offered as a file.
    """
    shown = kind in EVIDENCE and not kind.startswith("application/")
    name = f"{sha256[:16]}{_SUFFIXES.get(kind, '.bin')}"
    return {
        "Content-Type": kind,
        "Content-Disposition": f'{"inline" if shown else "attachment"}; filename="{name}"',
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
