"""Phones hand in pictures on the gateway, over links that break, and get back nothing that can run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from PIL import Image
from sitewarden.edge.cases import CASES
from sitewarden.edge.pages.blob_api import BlobApi
from sitewarden.edge.state_tables import TABLES
from sitewarden.serving.listen import serving
from sitewarden.serving.people import Person
from sitewarden.serving.secrets import Secrets
from sitewarden.serving.web import make_app
from sitewarden.sync.blob_files import DiskFullError
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.wire import CHUNK_BYTES
from sitewarden.words import now

PIN = "135790"
PEOPLE = {
    who: Person(id=who, name=who, name_en=who, roles=(role,), areas=("*",))
    for who, role in (
        ("wu", "worker"),
        ("li", "officer"),
        ("co", "contractor"),
        ("co2", "contractor"),
        ("in", "inspector"),
    )
}
KINDS = {
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "video/mp4": b"\x00\x00\x00\x18ftypisom",
    "application/pdf": b"%PDF-1.7 <script>",
}


def picture(size: int, seed: int = 1, kind: str = "image/jpeg") -> bytes:
    return (KINDS[kind] + random.Random(seed).randbytes(size))[:size]


def path_of(data: bytes) -> str:
    return f"/api/v1/blobs/{hashlib.sha256(data).hexdigest()}"


@dataclass
class Site:
    blobs: Blobs
    journal: Journal
    port: int
    secrets: Secrets

    @contextlib.asynccontextmanager
    async def phone(self, who: str = "wu") -> AsyncIterator[aiohttp.ClientSession]:
        """Somebody who is signed in."""
        self.secrets.set_pin(who, PIN)
        jar, base = aiohttp.CookieJar(unsafe=True), f"http://127.0.0.1:{self.port}"
        async with aiohttp.ClientSession(base, cookie_jar=jar) as session:
            async with session.post("/api/v1/session", json={"person": who, "pin": PIN}) as answer:
                session.headers["X-CSRF-Token"] = (await answer.json())["csrf"]
            yield session


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    secrets = Secrets(tmp_path / "secrets.db")
    async with (
        Journal(tmp_path / "journal.db", "gw1", TABLES) as journal,
        Blobs(tmp_path / "blobs", journal, rules=CASES, max_bytes=2_000_000) as blobs,
    ):
        app: web.Application = make_app(PEOPLE, secrets, cookie="edge")
        BlobApi(blobs).add_to(app)
        async with serving(app, "127.0.0.1", 0) as port:
            yield Site(blobs, journal, port, secrets)
    secrets.close()


def upload(offset: int, size: int) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Length": str(size)}


async def told(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    return answer.status, (await answer.json())["error"]["reason"]


async def test_a_picture_is_put_once_and_shown(site: Site) -> None:
    data = picture(300_000)
    async with site.phone() as phone:
        async with phone.put(path_of(data), data=data) as answer:
            assert answer.status == 201
            assert await answer.json() == {"offset": 300_000, "size": 300_000, "whole": True}
        async with phone.put(path_of(data), data=data) as answer:
            assert answer.status == 201, "a repeat is the same"
        async with phone.head(path_of(data)) as answer:
            assert (answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == ("300000", "300000")
        async with phone.get(path_of(data)) as answer:
            assert (answer.status, await answer.read()) == (200, data)
        async with phone.get(path_of(data), headers={"Range": "bytes=100-199"}) as answer:
            assert (answer.status, await answer.read()) == (206, data[100:200])


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_shown_cannot_run(site: Site, kind: str) -> None:
    data = picture(5000, kind=kind)
    async with site.phone() as phone:
        async with phone.put(path_of(data), data=data, headers={"Content-Type": "text/html"}) as answer:
            assert answer.status == 201
        async with phone.get(path_of(data)) as answer:
            fields = answer.headers
        assert fields["Content-Type"] == kind, "the bytes decide"
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Content-Security-Policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
        shown = "attachment" if kind == "application/pdf" else "inline"
        assert fields["Content-Disposition"].startswith(f"{shown}; filename=")
        assert fields["Cache-Control"] == "private, no-store"


def photo(kind: str) -> bytes:
    """1600 x 800, with a place in it and a program after it."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "secret place"
    Image.linear_gradient("L").convert("RGB").resize((1600, 800)).save(out, kind, exif=exif)
    return out.getvalue() + b"<script>alert(1)</script>"


@pytest.mark.parametrize(("kind", "shown"), [("JPEG", "JPEG"), ("WEBP", "JPEG"), ("PNG", "PNG")])
async def test_a_photo_is_shown_drawn_anew(site: Site, kind: str, shown: str) -> None:
    data = photo(kind)
    async with site.phone() as phone, site.phone("co") as contractor:
        async with phone.put(path_of(data), data=data) as answer:
            assert answer.status == 201
        path = f"{path_of(data)}/picture"
        for query, size in (("?side=400", (400, 200)), ("", (640, 320)), ("?side=400", (400, 200))):
            async with phone.get(path + query) as answer:
                assert answer.status == 200, await answer.text()
                made, fields = await answer.read(), answer.headers
            with Image.open(io.BytesIO(made)) as image:
                assert (image.size, image.format) == (size, shown)
                assert not image.getexif()
            assert b"secret" not in made
            assert b"script" not in made
            assert fields["Content-Type"] == f"image/{shown.lower()}"
            assert "sandbox" in fields["Content-Security-Policy"]
        async with contractor.get(path) as answer:
            assert await told(answer) == (403, "not_your_role")
        async with phone.get(f"{path}?side=4096") as answer:
            assert await told(answer) == (400, "bad_request")


async def test_many_photos_are_drawn_one_after_the_other_and_what_is_none_is_refused(site: Site) -> None:
    data, film = photo("JPEG"), picture(5000, kind="video/mp4")
    broken = picture(5000)
    async with site.phone() as phone:
        for one in (data, film, broken):
            async with phone.put(path_of(one), data=one) as answer:
                assert answer.status == 201

        async def shown(side: int) -> int:
            async with phone.get(f"{path_of(data)}/picture?side={side}") as answer:
                return answer.status

        assert await asyncio.gather(*(shown(64 + n) for n in range(6))) == [200] * 6
        async with phone.get(f"{path_of(film)}/picture") as answer:
            assert await told(answer) == (415, "wrong_type")
        async with phone.get(f"{path_of(broken)}/picture") as answer:
            assert await told(answer) == (400, "damaged")
        async with phone.get(f"{path_of(b'nobody')}/picture") as answer:
            assert await told(answer) == (404, "no_such_blob")


async def test_pieces_go_on_where_the_answer_says(site: Site) -> None:
    data = picture(700_000)
    async with site.phone() as phone:
        async with phone.head(path_of(data)) as answer:
            assert (answer.status, answer.headers["Upload-Offset"]) == (200, "0")
            assert "Upload-Length" not in answer.headers
        async with phone.patch(path_of(data), data=data[:200_000], headers=upload(0, 700_000)) as answer:
            assert (answer.status, answer.headers["Upload-Offset"]) == (200, "200000")
        async with phone.patch(path_of(data), data=data[300_000:], headers=upload(300_000, 700_000)) as answer:
            assert answer.headers["Upload-Offset"] == "200000"
            assert await told(answer) == (409, "offset")
        async with phone.patch(path_of(data), data=data[200_000:], headers=upload(200_000, 700_000)) as answer:
            assert (answer.status, (await answer.json())["whole"]) == (201, True)


async def test_an_upload_that_breaks_off_keeps_what_had_arrived(site: Site, eventually: Any) -> None:
    data = picture(1_000_000)
    broken = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield data[:600_000]
        await broken.wait()

    async with site.phone() as phone:
        headers = {**upload(0, len(data)), "Content-Length": str(len(data))}
        sending = asyncio.create_task(phone.patch(path_of(data), data=half(), headers=headers).__aenter__())

        async def offset() -> int:
            async with phone.head(path_of(data)) as answer:
                return int(answer.headers["Upload-Offset"])

        await eventually(lambda: _at_least(offset, 2 * CHUNK_BYTES), "two durable pieces")
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        await eventually(lambda: _at_least(offset, 600_000), "what had arrived when it broke off")
        start = await offset()
        async with phone.patch(path_of(data), data=data[start:], headers=upload(start, len(data))) as answer:
            assert (answer.status, (await answer.json())["whole"]) == (201, True)


async def _at_least(offset: Any, least: int) -> bool:
    return await offset() >= least


@pytest.mark.parametrize(
    ("data", "change", "status", "reason"),
    [
        (picture(2_000_001), {}, 413, "too_large"),
        (b"<svg onload='alert(1)'/>", {}, 415, "wrong_type"),
        (b"", {}, 400, "bad_request"),
        (picture(500), {"path": "/api/v1/blobs/" + "A" * 64}, 400, "bad_request"),
        (picture(500), {"path": "/api/v1/blobs/..%2f..%2fjournal.db"}, 400, "bad_request"),
        (picture(500), {"path": path_of(b"another")}, 409, "wrong_content"),
        (picture(500), {"headers": {"X-CSRF-Token": "no"}}, 403, "csrf"),
    ],
)
async def test_what_is_not_taken_is_told_and_leaves_nothing(
    site: Site, data: bytes, change: dict[str, Any], status: int, reason: str
) -> None:
    async with site.phone() as phone:
        async with phone.put(change.get("path", path_of(data)), data=data, headers=change.get("headers")) as answer:
            assert await told(answer) == (status, reason)
        assert [path for path in site.blobs.files.root.rglob("*") if path.is_file()] == []


async def test_a_full_disk_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(owner: str, offset: int, data: bytes) -> None:
        raise DiskFullError(Path("/data"), "No space left on device")

    data = picture(5000)
    async with site.phone() as phone:
        with monkeypatch.context() as patch:
            patch.setattr(site.blobs.files, "write", full)
            async with phone.put(path_of(data), data=data) as answer:
                assert await told(answer) == (507, "disk_full")
        async with phone.put(path_of(data), data=data) as answer:
            assert answer.status == 201


async def test_who_may_send_and_who_may_see(site: Site) -> None:
    data, own = picture(5000, 1), picture(5000, 2)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{site.port}") as nobody:
        for method in ("GET", "PUT", "PATCH"):
            async with nobody.request(method, path_of(data)) as answer:
                assert await told(answer) == (401, "signed_out")
    async with site.phone("wu") as worker, worker.put(path_of(data), data=data) as answer:
        assert answer.status == 201
    async with site.phone("in") as inspector:
        async with inspector.put(path_of(own), data=own) as answer:
            assert await told(answer) == (403, "not_your_role")
        async with inspector.get(path_of(data)) as answer:
            assert answer.status == 200
    async with site.phone("co") as contractor:
        async with contractor.put(path_of(own), data=own) as answer:
            assert answer.status == 201
        async with contractor.get(path_of(own)) as answer:
            assert answer.status == 200
        async with contractor.get(path_of(data)) as answer:
            assert await told(answer) == (403, "not_your_role")
    async with site.phone("co2") as other, other.get(path_of(own)) as answer:
        assert await told(answer) == (403, "not_your_role")


async def test_what_is_not_here_and_what_is_damaged_are_told_apart(site: Site) -> None:
    data = picture(5000)
    async with site.phone("li") as phone:
        async with phone.get(path_of(data)) as answer:
            assert await told(answer) == (404, "no_such_blob")
        async with phone.put(path_of(data), data=data) as answer:
            assert answer.status == 201
        path = site.blobs.files.path(path_of(data).rpartition("/")[2])
        path.write_bytes(data[:-1] + b"\0")
        async with phone.get(path_of(data)) as answer:
            assert await told(answer) == (503, "unavailable")
        async with phone.put(path_of(data), data=data) as answer:
            assert answer.status == 201, "it may be handed in again"
        async with phone.get(path_of(data)) as answer:
            assert await answer.read() == data


async def test_evidence_of_an_open_deviation_report_goes_first(site: Site) -> None:
    """The first case that records know."""
    data = picture(500)
    async with site.phone() as phone, phone.put(path_of(data), data=data) as answer:
        assert answer.status == 201
    sha = path_of(data).rpartition("/")[2]

    def report(closed: Any, *blobs: str) -> Draft:
        body = {"id": "deviation/a.b.c.high/1", "subject": {"key": "a.b.c.high/1"}, "closed": closed}
        kind = "deviation.closed" if closed else "deviation.opened"
        return Draft(kind=kind, at=now(), actor="li", body=body, blobs=blobs)

    await site.journal.append([report(None, sha)])
    assert [(row.sha256, row.is_open) for row in await site.blobs.waiting()] == [(sha, True)]
    await site.journal.append([report({"person": "li"})])
    assert [(row.sha256, row.is_open) for row in await site.blobs.waiting()] == [(sha, False)]
