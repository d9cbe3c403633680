"""A program of its own: a picture that a person brought becomes one that pages can show. Only it loads these libraries.

    python -m sitewarden.edge.plan.render PAGE SIDE < picture > made

What it makes is drawn anew, pixel by pixel: nothing of the file itself is passed on. Memory and CPU are limited, so a
file that unfolds without end stops this program and nothing else. On standard error stands one line of JSON: `pages`,
`width`, `height`, or `reason` and `message` with exit code 1.
"""

from __future__ import annotations

import io
import json
import re
import resource
import sys
from typing import Any
from xml.parsers import expat

MOST_PIXELS = 100_000_000
"""Of a picture that comes; one that unfolds to more is refused before it is unfolded."""
MOST_SIDE = 4096
MEMORY_BYTES = 1536 * 2**20
CPU_S = 30
_ASPECT = 20
_DATA_IMAGE = re.compile(r"data:image/(png|jpeg);base64,")
_NUMBER = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(px|mm|cm|in|pt|pc|q)?\s*", re.IGNORECASE)


class RefusedPictureError(Exception):
    """`reason` as the API says it, and a message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def made(data: bytes, page: int, side: int = MOST_SIDE) -> tuple[bytes, dict[str, Any]]:
    """The picture anew, PNG or JPEG, and `pages`, `width`, `height`. Args: side: in pixels, of the longer side at most.
    Raises RefusedPictureError."""
    if data.startswith(b"%PDF-"):
        return _of_pdf(data, page, side)
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or data[8:12] == b"WEBP":
        return _of_pixels(data, side)
    if b"<svg" in data[:65_536].lower():
        return _of_pixels(_svg_drawn(data), side)
    raise RefusedPictureError("wrong_type", "this is no PNG, JPEG, WebP, SVG or PDF file")


def _of_pixels(data: bytes, side: int) -> tuple[bytes, dict[str, Any]]:
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise RefusedPictureError("too_large", f"{opened.width} x {opened.height} pixels are too many")
            is_photo = opened.format != "PNG"
            opened.draft("RGB", (side, side))  # of a JPEG: no more pixels than are asked for, nearly
            image = ImageOps.exif_transpose(opened).convert("RGB" if is_photo else "RGBA")
    except Image.DecompressionBombError as error:
        raise RefusedPictureError("too_large", str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise RefusedPictureError("damaged", f"the picture cannot be read: {error}") from error
    return _encoded(image, side, is_photo=is_photo)


def _encoded(image: Any, side: int, *, is_photo: bool, pages: int = 1) -> tuple[bytes, dict[str, Any]]:
    image.thumbnail((side, side))
    out = io.BytesIO()
    if is_photo:
        image.save(out, "JPEG", quality=85, optimize=True)
    else:
        image.save(out, "PNG", optimize=True)
    return out.getvalue(), {"pages": pages, "width": image.width, "height": image.height}


def _of_pdf(data: bytes, page: int, side: int) -> tuple[bytes, dict[str, Any]]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
        pages = len(document)
        if not 1 <= page <= pages:
            raise RefusedPictureError("bad_request", f"page: must be 1..{pages} (got {page})")
        sheet = document[page - 1]
        longest = max(sheet.get_size())
        image = sheet.render(scale=min(8.0, side / max(longest, 1.0)), may_draw_forms=False).to_pil()
    except pypdfium2.PdfiumError as error:
        raise RefusedPictureError("damaged", f"the PDF cannot be read: {error}") from error
    return _encoded(image.convert("RGB"), side, is_photo=False, pages=pages)


def _svg_drawn(data: bytes) -> bytes:
    import resvg_py

    width, height = _svg_size(data)
    side = MOST_SIDE // 2
    wide, high = (side, None) if width >= height else (None, side)
    try:
        text = data.decode("utf-8-sig")
        return resvg_py.svg_to_bytes(svg_string=text, background="#ffffff", width=wide, height=high)
    except (ValueError, UnicodeDecodeError) as error:
        raise RefusedPictureError("damaged", f"the SVG cannot be drawn: {error}") from error


def _svg_size(data: bytes) -> tuple[float, float]:
    """Width and height. Refuses what loads other files or defines entities, whatever the drawing library would do."""
    root: dict[str, str] = {}

    def refuse_entities(*_: Any) -> None:
        raise RefusedPictureError("not_allowed", "an SVG may define no entities")

    def look(name: str, attributes: dict[str, str]) -> None:
        if not root:
            root.update({"": name, **attributes})
        for key, value in attributes.items():
            if key.rpartition(":")[2].lower() in ("href", "src") and not _is_own(value):
                raise RefusedPictureError("not_allowed", f"an SVG may show nothing from elsewhere: {value[:60]!r}")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse_entities
    parser.StartElementHandler = look
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise RefusedPictureError("damaged", f"the SVG is not well formed: {error}") from error
    return _sides(root)


def _is_own(value: str) -> bool:
    return value.strip().startswith("#") or _DATA_IMAGE.match(value.strip()) is not None


def _sides(root: dict[str, str]) -> tuple[float, float]:
    box = [
        float(part)
        for part in re.findall(r"[-+0-9.e]+", root.get("viewBox", ""))
        if _NUMBER.fullmatch(part.lstrip("-"))
    ]
    given = [_NUMBER.fullmatch(root.get(side, "")) for side in ("width", "height")]
    sides = tuple(float(one[1]) for one in given if one)
    if len(sides) != 2 and len(box) == 4:
        sides = (box[2], box[3])
    if len(sides) != 2 or min(sides) <= 0 or max(sides) / min(sides) > _ASPECT:
        raise RefusedPictureError("damaged", "the SVG says no usable width and height, nor a viewBox")
    return sides[0], sides[1]


def main() -> int:
    """Standard input to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    try:
        picture, facts = made(sys.stdin.buffer.read(), *map(int, sys.argv[1:]))
    except RefusedPictureError as refused:
        print(json.dumps({"reason": refused.reason, "message": str(refused)}), file=sys.stderr)
        return 1
    except MemoryError:
        print(json.dumps({"reason": "too_large", "message": "the picture unfolds to too much"}), file=sys.stderr)
        return 1
    sys.stdout.buffer.write(picture)
    print(json.dumps(facts), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
