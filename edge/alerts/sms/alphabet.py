"""The GSM 7-bit default alphabet with its extension table, and its packing (3GPP TS 23.038 §6). Pure."""

from __future__ import annotations

from collections.abc import Iterable

ESCAPE = 0x1B
_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}
_SEPTETS = {char: (code,) for code, char in enumerate(_BASIC) if code != ESCAPE} | {
    char: (ESCAPE, code) for char, code in _EXTENSION.items()
}
_ESCAPED = {code: char for char, code in _EXTENSION.items()}


def fits(text: str) -> bool:
    """Whether every character is in the alphabet."""
    return all(char in _SEPTETS for char in text)


def septets(text: str) -> list[int]:
    """The codes of a text that fits; a character of the extension table takes two."""
    return [code for char in text for code in _SEPTETS[char]]


def text_of(codes: Iterable[int]) -> str:
    """The characters of 7-bit codes. What is escaped and not in the extension table is read in the basic one."""
    text, escaped = "", False
    for code in codes:
        if escaped:
            text, escaped = text + _ESCAPED.get(code, _BASIC[code]), False
        elif code == ESCAPE:
            escaped = True
        else:
            text += _BASIC[code]
    return text


def pack(codes: Iterable[int], fill_bits: int = 0) -> bytes:
    """Eight codes in seven octets, lowest bits first, after `fill_bits` zero bits."""
    held, bits, octets = 0, fill_bits, bytearray()
    for code in codes:
        held |= code << bits
        bits += 7
        while bits >= 8:
            octets.append(held & 0xFF)
            held >>= 8
            bits -= 8
    if bits:
        octets.append(held)
    return bytes(octets)


def unpack(octets: bytes, count: int, fill_bits: int = 0) -> list[int]:
    """The first `count` codes after `fill_bits` bits; `octets` must hold them."""
    codes: list[int] = []
    for n in range(count):
        at, shift = divmod(fill_bits + 7 * n, 8)
        pair = octets[at] | (octets[at + 1] << 8 if at + 1 < len(octets) else 0)
        codes.append(pair >> shift & 0x7F)
    return codes
