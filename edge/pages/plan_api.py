"""Site plans: everybody signed in sees them; officers and administrators draw them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from aiohttp import ClientError, web

from ...errors import RefusedError
from ...serving.people import Person, named
from ...serving.web import PERSON, signed_in
from ...sync.blob_files import DamagedBlobError
from ...sync.blobs import Blobs
from ...sync.journal import Draft, Record
from ...sync.media import HEAD_BYTES, media_type, safe_headers
from ...words import now
from ..plan import table
from ..plan.drawing import MOST_BYTES, Drawing
from ..plan.model import KINDS, MOST_PLANS, checked_plan, plan_id
from . import asked
from .parts import Ask

EDITORS = ("officer", "admin")
MOST_PLAN_BYTES = 2 * 2**20
_MOST_PAGES = 10_000
_PATH = "/api/v1/plans"
_CACHED = "private, max-age=86400, immutable"


class PlanApi:
    """Handlers of `/api/v1/plans`.

    Args:
        record: commits a draft.
        check_room: raises RefusedError when there is no room for so many bytes.
    """

    def __init__(
        self,
        ask: Ask,
        blobs: Blobs,
        record: Callable[[Draft], Awaitable[list[Record]]],
        check_room: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._ask, self._blobs, self._record, self._check_room = ask, blobs, record, check_room
        self._drawing = Drawing()
        self._saving = asyncio.Lock()

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get(_PATH, signed_in(self._list))
        app.router.add_post(f"{_PATH}/pictures", signed_in(self._import))
        app.router.add_get(_PATH + "/pictures/{sha256}", signed_in(self._picture))
        app.router.add_get(_PATH + "/{plan}", signed_in(self._get))
        app.router.add_get(_PATH + "/{plan}/versions", signed_in(self._versions))
        app.router.add_put(_PATH + "/{plan}", signed_in(self._put))
        app.router.add_delete(_PATH + "/{plan}", signed_in(self._remove))

    async def _list(self, request: web.Request) -> web.Response:
        """`mine`: the person who asks may draw."""
        plans = await self._ask().journal.query(table.plans)
        mine = bool(set(EDITORS) & set(request[PERSON].roles))
        return web.json_response({"plans": [self._view(plan) for plan in plans], "kinds": list(KINDS), "mine": mine})

    async def _get(self, request: web.Request) -> web.Response:
        id_, text = plan_id(request.match_info["plan"]), request.query.get("rev", "")
        rev = asked.number(request, "rev", default=0, low=1, high=2**53) if text else None
        plan = await self._ask().journal.query(lambda c: table.plan(c, id_, rev))
        if plan is None:
            raise RefusedError("no_such_plan", f"there is no plan {id_!r}{f' of revision {rev}' if rev else ''}")
        return web.json_response({"plan": self._view(plan)})

    async def _versions(self, request: web.Request) -> web.Response:
        id_ = plan_id(request.match_info["plan"])
        found = await self._ask().journal.query(lambda c: table.versions(c, id_))
        return web.json_response({"versions": [self._view(version) for version in found]})

    async def _put(self, request: web.Request) -> web.Response:
        """A new version. `base`: the revision that was edited, 0 for a new plan; another one meanwhile is told."""
        id_, person = plan_id(request.match_info["plan"]), self._editor(request)
        given = await _json(request)
        plan = checked_plan(given)
        async with self._saving:
            await self._check_base(id_, given["base"])
            await self._check_picture(plan)
            blobs = (plan["picture"]["sha256"],) if plan["picture"] else ()
            await self._commit(table.SAVED, person, {"id": id_, "plan": plan}, blobs)
        saved = await self._ask().journal.query(lambda c: table.plan(c, id_))
        assert saved is not None
        return web.json_response({"plan": self._view(saved)})

    async def _remove(self, request: web.Request) -> web.Response:
        """Off the pages; its versions stay in the journal."""
        id_, person = plan_id(request.match_info["plan"]), self._editor(request)
        async with self._saving:
            if await self._ask().journal.query(lambda c: table.plan(c, id_)) is None:
                raise RefusedError("no_such_plan", f"there is no plan {id_!r}")
            await self._commit(table.REMOVED, person, {"id": id_})
        return web.json_response({})

    async def _import(self, request: web.Request) -> web.Response:
        """A picture as it is, in the body; `page` of a PDF. Answers what a plan's `picture` needs, and `pages`."""
        person = self._editor(request)
        page = asked.number(request, "page", default=1, low=1, high=_MOST_PAGES)
        data = await _content(request, MOST_BYTES)
        self._check_room(2 * len(data))
        drawn = await self._drawing.draw(data, page)
        sha256 = await self._blobs.take(_once(drawn.data), person=person.id)
        picture = {"sha256": sha256, "width": drawn.width, "height": drawn.height}
        await self._commit(table.IMPORTED, person, {"picture": picture, "pages": drawn.pages}, (sha256,))
        return web.json_response({"picture": picture, "pages": drawn.pages}, status=201)

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        """A picture that an import has drawn anew; nothing else that people handed in."""
        sha256 = request.match_info["sha256"]
        if await self._ask().journal.query(lambda c: table.picture(c, sha256)) is None:
            raise RefusedError("no_such_blob", "there is no such picture of a plan")
        try:
            path = await self._blobs.verified(sha256)
            kind = media_type(await self._blobs.piece(sha256, 0, HEAD_BYTES))
        except DamagedBlobError as error:
            raise RefusedError("unavailable", error.message, hint="import the picture again") from error
        return web.FileResponse(path, headers={**safe_headers(sha256, kind), "Cache-Control": _CACHED})

    # --- inside ---

    def _editor(self, request: web.Request) -> Person:
        person: Person = request[PERSON]
        asked.require_role(person, EDITORS)
        return person

    def _view(self, plan: dict[str, Any]) -> dict[str, Any]:
        who = named(self._ask().site.people, plan["by"])
        return {**plan, "by_name": who["name"], "by_name_en": who["name_en"]}

    async def _check_base(self, id_: str, base: Any) -> None:
        plans = await self._ask().journal.query(table.plans)
        rev = next((plan["rev"] for plan in plans if plan["id"] == id_), 0)
        if base != rev:
            hint = "load the plan again, then make the change again"
            raise RefusedError("plan_changed", f"{id_}: somebody has saved it meanwhile (revision {rev})", hint=hint)
        if not rev and len(plans) >= MOST_PLANS:
            raise RefusedError("bad_request", f"there are {MOST_PLANS} plans already", hint="remove one first")

    async def _check_picture(self, plan: dict[str, Any]) -> None:
        """What the import has made, and nothing else: only that was drawn anew."""
        picture = plan["picture"]
        if picture is None:
            return
        if await self._ask().journal.query(lambda c: table.picture(c, picture["sha256"])) != picture:
            raise RefusedError("no_such_blob", "picture: is not what an import has made", hint="import it first")

    async def _commit(self, kind: str, person: Person, body: dict[str, Any], blobs: tuple[str, ...] = ()) -> None:
        self._ask().check_sign_off()
        await self._record(Draft(kind=kind, at=now(), actor=person.id, body=body, blobs=blobs))
        if kind != table.IMPORTED:
            self._ask().hub.send("plans", {"id": body["id"]})


async def _json(request: web.Request) -> dict[str, Any]:
    data = await _content(request, MOST_PLAN_BYTES)
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        raise RefusedError("bad_request", "the body is not JSON") from None
    known = {"name", "name_en", "picture", "items", "base"}
    if not isinstance(given, dict) or set(cast("dict[str, Any]", given)) != known:
        raise RefusedError("bad_request", f"the body must have exactly the fields {', '.join(sorted(known))}")
    return cast("dict[str, Any]", given)


async def _content(request: web.Request, most: int) -> bytes:
    """The body, never more than `most` bytes of it."""
    if (request.content_length or 0) > most:
        raise RefusedError("too_large", f"at most {most} bytes (got {request.content_length})")
    gathered = bytearray()
    try:
        async for piece in request.content.iter_any():
            gathered += piece
            if len(gathered) > most:
                raise RefusedError("too_large", f"at most {most} bytes")
    except (ClientError, ConnectionError) as error:  # whoever sent it went away; nobody hears this answer
        raise RefusedError("bad_request", f"the upload broke off: {error}") from error
    return bytes(gathered)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
