"""The operator's doors to `enrolling`: pages with a session and a role, and this machine's socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ..errors import RefusedError
from ..serving.people import Person
from ..serving.web import PERSON, body, signed_in
from .enrolling import Enrolling

PAGES = "/api/v1/enrolment"
ROLES = ("it", "admin")

Decide = Callable[[Mapping[str, Any], str], Awaitable[dict[str, Any]]]


class EnrolPages:
    """The operator's door, in HTTP: for pages with a session, and for commands on this machine's socket."""

    def __init__(self, enrolling: Enrolling) -> None:
        self._enrolling = enrolling

    def add_pages(self, app: web.Application) -> None:
        """Under /api/v1, for `ROLES`."""
        app.router.add_get(PAGES, signed_in(self._listed))
        for name, shape, decide in self._decisions():
            app.router.add_post(f"{PAGES}/{name}", signed_in(_deciding(shape, decide, _operator)))

    def add_to_socket(self, app: web.Application) -> None:
        """For whoever may open the data folder."""
        app.router.add_get("/v1/enrolment", self._listed_here)
        for name, shape, decide in (*self._decisions(), ("bring", {"request": dict}, self._bring)):
            app.router.add_post(f"/v1/enrolment/{name}", _deciding(shape, decide, lambda _: "console"))

    def _decisions(self) -> tuple[tuple[str, dict[str, Any], Decide], ...]:
        return (
            ("approve", {"gateway": str, "code": str, "id": (str, type(None)), "replace": bool}, self._approve),
            ("refuse", {"gateway": str, "id": str}, self._refuse),
            ("revoke", {"gateway": str, "kid": (str, type(None)), "reason": str}, self._revoke),
        )

    async def _listed(self, request: web.Request) -> web.Response:
        person = request[PERSON]
        found = await self._enrolling.overview()
        found["may_decide"] = _may_decide(person)
        if not found["may_decide"]:
            found["pending"] = []
        return web.json_response(found)

    async def _listed_here(self, _: web.Request) -> web.Response:
        return web.json_response(await self._enrolling.overview())

    async def _approve(self, fields: Mapping[str, Any], by: str) -> dict[str, Any]:
        return await self._enrolling.approve(
            fields["gateway"], fields["code"], by, request_id=fields["id"] or "", replace=fields["replace"]
        )

    async def _refuse(self, fields: Mapping[str, Any], by: str) -> dict[str, Any]:
        await self._enrolling.refuse(fields["gateway"], fields["id"], by)
        return {}

    async def _revoke(self, fields: Mapping[str, Any], by: str) -> dict[str, Any]:
        if not fields["reason"].strip():
            raise RefusedError("bad_request", "reason: must say why")
        return {"revoked": await self._enrolling.revoke(fields["gateway"], fields["kid"] or "", fields["reason"], by)}

    async def _bring(self, fields: Mapping[str, Any], _by: str) -> dict[str, Any]:
        return {"id": await self._enrolling.bring(fields["request"])}


def _deciding(
    shape: dict[str, Any], decide: Decide, who: Callable[[web.Request], str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        by = who(request)
        return web.json_response(await decide(await body(request, shape), by))

    return handler


def _operator(request: web.Request) -> str:
    person = request[PERSON]
    if not _may_decide(person):
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(ROLES)}", hint="call a person who is")
    return person.id


def _may_decide(person: Person) -> bool:
    return bool(set(ROLES) & set(person.roles))
