"""Site plans: pictures drawn anew, places that are journal records, roles. On a running gateway."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image
from sitewarden.edge.plan import drawing, table
from sitewarden.edge.plan.drawing import Drawing
from sitewarden.edge.plan.model import checked_plan
from sitewarden.errors import RefusedError
from sitewarden.sync.record import Record
from sitewarden.tests.test_edge_api import HUMIDITY, Page, Site, hashed, signed_in, site

__all__ = ["hashed", "site"]

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 200"><rect width="400" height="200" fill="#eee"/></svg>'
)
ITEMS = [
    {"id": "i1", "kind": "point", "ref": HUMIDITY, "at": [[0.25, 0.5]]},
    {"id": "i2", "kind": "zone", "ref": "aux_store", "at": [[0.1, 0.1], [0.5, 0.1], [0.5, 0.9]], "name": "助剂库"},
    {"id": "i3", "kind": "camera", "at": [[0.9, 0.9]], "angle": 225, "name": "门口", "name_en": "Door"},
]


def png(width: int = 60, height: int = 30) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "#ddd").save(out, "PNG")
    return out.getvalue()


def pdf(pages: int = 2) -> bytes:
    out = io.BytesIO()
    sheets = [Image.new("RGB", (300, 150), colour) for colour in ("white", "black", "white")[:pages]]
    sheets[0].save(out, "PDF", save_all=True, append_images=sheets[1:])
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def plan_of(**changes: Any) -> dict[str, Any]:
    return {"name": "一号厂区", "name_en": "Plant 1", "picture": None, "items": ITEMS, "base": 0, **changes}


async def imported(page: Page, data: bytes, query: str = "") -> tuple[int, Any]:
    headers = {"X-CSRF-Token": page.csrf}
    async with page.http.post(page.site.url(f"plans/pictures{query}"), data=data, headers=headers) as answer:
        return answer.status, await answer.json()


# --- pictures ---


@pytest.mark.parametrize(
    ("data", "size", "beginning"),
    [(png(), (60, 30), b"\x89PNG"), (SVG, (2048, 1024), b"\x89PNG"), (pdf(), (2400, 1200), b"\x89PNG")],
    ids=["png", "svg", "pdf"],
)
async def test_each_kind_of_picture_is_drawn_anew(data: bytes, size: tuple[int, int], beginning: bytes):
    drawn = await Drawing().draw(data, 1)
    assert drawn.data.startswith(beginning)
    assert drawn.data != data
    assert (drawn.width, drawn.height) == size
    with Image.open(io.BytesIO(drawn.data)) as image:
        assert image.size == size


async def test_the_page_of_a_pdf_is_chosen_and_what_hangs_on_a_photo_is_gone():
    drawn = await Drawing().draw(pdf(), 2)
    assert drawn.pages == 2
    with Image.open(io.BytesIO(drawn.data)) as image:
        assert image.convert("RGB").getpixel((100, 100)) == (0, 0, 0), "the second page is black"
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    Image.new("RGB", (20, 10), "red").save(out, "JPEG", exif=exif)
    photo = await Drawing().draw(out.getvalue() + b"<script>alert(1)</script>", 1)
    assert photo.data.startswith(b"\xff\xd8\xff")
    assert b"secret" not in photo.data
    assert b"script" not in photo.data


REFUSED = {
    "text": (b"hello", "wrong_type"),
    "html": (b"<html><body onload=alert(1)></body></html>", "wrong_type"),
    "cut off": (png()[:60], "damaged"),
    "broken pdf": (b"%PDF-1.7\nnothing", "damaged"),
    "bomb": (bomb(), "too_large"),
    "svg without size": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "damaged"),
    "svg as thin as a hair": (SVG.replace(b"0 0 400 200", b"0 0 400 0.001"), "damaged"),
    "svg that is cut off": (SVG[:-8], "damaged"),
    "svg with a file": (SVG.replace(b"<rect", b'<image href="file:///etc/passwd"/><rect'), "not_allowed"),
    "svg with an address": (
        SVG.replace(b"<rect", b'<use xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="http://x/y.svg#a"/><rect'),
        "not_allowed",
    ),
    "svg that laughs": (b'<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa">]>' + SVG, "not_allowed"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_picture_is_refused_with_a_reason(data: bytes, reason: str):
    with pytest.raises(RefusedError) as refused:
        await Drawing().draw(data, 1)
    assert refused.value.reason == reason
    assert refused.value.hint


async def test_a_program_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "hangs.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(drawing, "_MODULE", "hangs")
    monkeypatch.setattr(drawing, "LIMIT_S", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RefusedError) as refused:
        await Drawing().draw(png(), 1)
    assert refused.value.reason == "too_large"


def test_the_libraries_are_loaded_by_that_program_alone():
    import subprocess

    code = "import sys, sitewarden.edge.front; print([n for n in ('PIL', 'pypdfium2', 'resvg_py') if n in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


# --- plans ---


async def test_a_plan_is_drawn_saved_in_versions_and_seen_by_everybody(site: Site):
    async with signed_in(site, "wang") as wang, signed_in(site, "li") as li:
        status, answer = await imported(wang, png())
        assert status == 201, answer
        picture = answer["picture"]
        assert await li.ask("GET", "plans") == (200, {"plans": [], "kinds": _kinds(), "mine": False})
        status, saved = await wang.ask("PUT", "plans/main", plan_of(picture=picture))
        assert status == 200, saved
        (plan,) = (await li.get("plans"))["plans"]
        assert plan == saved["plan"]
        assert (plan["name"], plan["by"], plan["by_name"], plan["picture"]) == ("一号厂区", "wang", "王", picture)
        assert [(item["id"], item["kind"], item["at"]) for item in plan["items"]] == [
            (item["id"], item["kind"], item["at"]) for item in ITEMS
        ]
        async with li.http.get(site.url(f"plans/pictures/{picture['sha256']}")) as shown:
            assert (shown.status, shown.headers["Content-Type"]) == (200, "image/png")
            assert "sandbox" in shown.headers["Content-Security-Policy"]
            assert hashlib.sha256(await shown.read()).hexdigest() == picture["sha256"]

        moved = [{**ITEMS[0], "at": [[0.75, 0.5]]}, *ITEMS[1:]]
        status, second = await wang.ask("PUT", "plans/main", plan_of(picture=picture, items=moved, base=plan["rev"]))
        assert status == 200, second
        assert await wang.refused("PUT", "plans/main", plan_of(base=plan["rev"])) == (409, "plan_changed")
        versions = (await li.get("plans/main/versions"))["versions"]
        assert [version["rev"] for version in versions] == [second["plan"]["rev"], plan["rev"]]
        first = (await li.get(f"plans/main?rev={plan['rev']}"))["plan"]
        assert first["items"][0]["at"] == [[0.25, 0.5]]
        assert (await li.get("plans/main"))["plan"]["items"][0]["at"] == [[0.75, 0.5]]

    await site.stop()
    await site.start()
    async with signed_in(site, "wang") as wang:
        assert (await wang.get("plans/main"))["plan"] == second["plan"], "the journal alone makes it again"
        assert await wang.ask("DELETE", "plans/main") == (200, {})
        assert await wang.refused("GET", "plans/main") == (404, "no_such_plan")
        assert await wang.refused("DELETE", "plans/main") == (404, "no_such_plan")


def _kinds() -> list[str]:
    return ["point", "checkpoint", "zone", "fence", "camera"]


async def test_only_officers_and_administrators_draw(site: Site):
    async with signed_in(site, "li") as li, signed_in(site, "zhao") as zhao:
        for page in (li, zhao):
            assert await page.refused("PUT", "plans/main", plan_of()) == (403, "not_your_role")
            assert await page.refused("DELETE", "plans/main") == (403, "not_your_role")
            status, answer = await imported(page, png())
            assert (status, answer["error"]["reason"]) == (403, "not_your_role")


async def test_a_picture_that_no_import_has_drawn_is_neither_taken_nor_shown(site: Site):
    raw = png(10, 10)
    sha256 = hashlib.sha256(raw).hexdigest()
    async with signed_in(site, "wang") as wang:
        async with wang.http.put(site.url(f"blobs/{sha256}"), data=raw, headers={"X-CSRF-Token": wang.csrf}) as answer:
            assert answer.status == 201
        picture = {"sha256": sha256, "width": 10, "height": 10}
        assert await wang.refused("PUT", "plans/main", plan_of(picture=picture)) == (404, "no_such_blob")
        assert await wang.refused("GET", f"plans/pictures/{sha256}") == (404, "no_such_blob")
        assert await wang.refused("GET", "plans/pictures/..%2F..%2Fsecrets.db") == (404, "no_such_blob")


async def test_what_is_too_large_or_no_json_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch):
    from sitewarden.edge.pages import plan_api

    monkeypatch.setattr(plan_api, "MOST_BYTES", 100)
    monkeypatch.setattr(plan_api, "MOST_PLAN_BYTES", 2000)
    async with signed_in(site, "wang") as wang:
        status, answer = await imported(wang, bytes(101))
        assert (status, answer["error"]["reason"]) == (413, "too_large")
        assert await wang.refused("PUT", "plans/main", plan_of(name="长" * 2000)) == (413, "too_large")
        for body in (b"{", b"[]", json.dumps(plan_of() | {"more": 1}).encode()):
            headers = {"X-CSRF-Token": wang.csrf}
            async with wang.http.put(site.url("plans/main"), data=body, headers=headers) as answer:
                assert (answer.status, (await answer.json())["error"]["reason"]) == (400, "bad_request")
        assert await wang.refused("PUT", "plans/Main..", plan_of()) == (400, "bad_request")


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "kind": (lambda p: p["items"][0].update(kind="gate"), "items[0].kind"),
    "no ref": (lambda p: p["items"][0].update(ref=""), "items[0].ref"),
    "ref with a path": (lambda p: p["items"][2].update(ref="../x"), "items[2].ref"),
    "outside": (lambda p: p["items"][0].update(at=[[1.1, 0]]), "items[0].at[0]"),
    "no number": (lambda p: p["items"][0].update(at=[[float("nan"), 0]]), "items[0].at[0]"),
    "truth": (lambda p: p["items"][0].update(at=[[True, 0]]), "items[0].at[0]"),
    "zone of two": (lambda p: p["items"][1].update(at=[[0, 0], [1, 1]]), "items[1].at"),
    "angle": (lambda p: p["items"][2].update(angle=360), "items[2].angle"),
    "unknown field": (lambda p: p["items"][0].update(colour="red"), "items[0].colour"),
    "twice": (lambda p: p["items"][1].update(id="i1"), "items: two"),
    "too many": (lambda p: p.update(items=p["items"] * 1000), "items: must"),
    "no name": (lambda p: p.update(name=" "), "name:"),
    "surrogate": (lambda p: p.update(name="\ud800"), "name:"),
    "picture": (lambda p: p.update(picture={"sha256": "x", "width": 1, "height": 1}), "picture.sha256"),
    "no pixels": (lambda p: p.update(picture={"sha256": "0" * 64, "width": 0, "height": 1}), "picture.width"),
}


@pytest.mark.parametrize(("spoil", "says"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_a_plan_names_its_field(spoil: Callable[[dict[str, Any]], Any], says: str):
    given = json.loads(json.dumps(plan_of()))
    assert len(checked_plan(given)["items"]) == 3
    spoil(given)
    with pytest.raises(RefusedError, match="bad_request|" + says.replace("[", r"\[").replace("]", r"\]")) as refused:
        checked_plan(given)
    assert refused.value.reason == "bad_request"
    assert refused.value.message.startswith(says)


@contextmanager
def tables() -> Iterator[sqlite3.Connection]:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(table.SCHEMA)
        yield connection


def test_the_last_versions_are_kept():
    with tables() as connection:
        for seq in range(1, table.KEPT + 6):
            body = {"id": "main", "plan": {"name": str(seq), "items": []}}
            at = {"utc": "2026-11-23T00:00:00.000Z"}
            record = Record.__new__(Record)
            for name, value in {"seq": seq, "kind": table.SAVED, "actor": "wang", "at": at, "body": body}.items():
                object.__setattr__(record, name, value)
            table.apply(connection, record)
        kept = table.versions(connection, "main")
        assert [version["rev"] for version in (kept[0], kept[-1])] == [table.KEPT + 5, 6]
        assert table.plan(connection, "main", 5) is None
        assert (table.plan(connection, "main") or {})["name"] == str(table.KEPT + 5)
