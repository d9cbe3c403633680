"""The aiohttp application that edge and cloud start from: refusals as JSON, sessions, CSRF, limits, headers."""

from __future__ import annotations

import hmac
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from ..errors import RefusedError
from ..words import is_text
from .logs import REQUEST
from .people import Person
from .secrets import Secrets, Session

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PEOPLE: web.AppKey[Mapping[str, Person]] = web.AppKey("people", Mapping)
SECRETS: web.AppKey[Secrets] = web.AppKey("secrets", Secrets)
COOKIE: web.AppKey[str] = web.AppKey("cookie", str)
PERSON: web.RequestKey[Person] = web.RequestKey("person", Person)

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{8,64}")
_SAFE = ("GET", "HEAD", "OPTIONS")
_STATUS = {
    "signed_out": 401,
    "wrong_pin": 401,
    "too_many_tries": 429,
    "csrf": 403,
    "https_only": 403,
    "not_your_role": 403,
    "not_your_area": 403,
    "not_allowed": 403,
    "not_found": 404,
    "no_such_alarm": 404,
    "no_such_point": 404,
    "no_such_bus": 404,
    "no_such_output": 404,
    "no_such_freeze": 404,
    "no_such_deviation": 404,
    "no_such_position": 404,
    "no_such_state": 400,
    "no_such_blob": 404,
    "no_such_plan": 404,
    "no_such_request": 404,
    "no_such_key": 404,
    "unknown_gateway": 404,
    "no_code": 400,
    "too_large": 413,
    "wrong_type": 415,
    "disk_full": 507,
    "busy": 429,
    "bad_request": 400,
    "damaged": 400,
    "unavailable": 503,
    "not_recorded": 503,
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none';"
        " form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(
    people: Mapping[str, Person], secrets: Secrets, *, cookie: str, body_limit: int = 64 * 1024
) -> web.Application:
    """An application with sign-in at `/api/v1/people` and `/api/v1/session`.

    Args:
        people: who may sign in.
        secrets: PINs and sessions.
        cookie: name of the session cookie; differs between servers of one host, whose cookies share the jar.
        body_limit: largest request body, bytes.
    """
    app = web.Application(middlewares=[name_request, answer_refusals], client_max_size=body_limit)
    app.on_response_prepare.append(_add_headers)
    app[PEOPLE] = people
    app[SECRETS] = secrets
    app[COOKIE] = cookie
    app.router.add_get("/api/v1/people", _list_people)
    app.router.add_get("/api/v1/session", _who_am_i)
    app.router.add_post("/api/v1/session", _sign_in)
    app.router.add_delete("/api/v1/session", _sign_out)
    return app


def signed_in(handler: Handler) -> Handler:
    """Only with a session, and for unsafe methods only with its CSRF token; the person is `request[PERSON]`."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        session = _session(request)
        person = request.app[PEOPLE].get(session.person)
        if person is None:
            raise RefusedError("signed_out", "this person is no longer in people.csv")
        if request.method not in _SAFE:
            _check_token(request, session)
        request[PERSON] = person
        return await handler(request)

    return guarded


def still_signed_in(request: web.Request) -> bool:
    """Whether the session that a request came with goes on."""
    try:
        return _session(request).person in request.app[PEOPLE]
    except RefusedError:
        return False


def add_pages(app: web.Application, dist: Path, page: str) -> None:
    """Serve the built page `dist/page` at `/` and its files at `/assets`."""
    index = dist / page

    async def serve(_: web.Request) -> web.StreamResponse:
        if not index.is_file():
            return web.Response(status=503, text=f"The pages are not built ({page} is missing). Run: make web\n")
        return web.FileResponse(index, headers={"Cache-Control": "no-cache"})

    app.router.add_get("/", serve)
    if (dist / "assets").is_dir():
        app.router.add_static("/assets", dist / "assets", append_version=False)


async def body(request: web.Request, fields: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """The JSON object of a request with exactly these fields. Raises RefusedError `bad_request` naming the field.

    A field that may be None may be left out; the answer has it all the same.
    """
    try:
        value = await request.json()
    except (ValueError, LookupError, RecursionError):  # not JSON, an unknown charset, nested without end
        raise RefusedError("bad_request", "the body is not JSON") from None
    if not isinstance(value, dict):
        raise RefusedError("bad_request", "the body must be a JSON object")
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise RefusedError("bad_request", f"{unknown[0]}: unknown field (known: {', '.join(fields)})")
    for name, kind in fields.items():
        given, kinds = value.get(name), kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(given, kinds) or (isinstance(given, bool) and bool not in kinds):
            raise RefusedError("bad_request", f"{name}: missing or of the wrong type (got {given!r:.60})")
        if isinstance(given, str) and not is_text(given):
            raise RefusedError("bad_request", f"{name}: is not text (got {given!r:.60})")
    return {name: value.get(name) for name in fields}


def _session(request: web.Request) -> Session:
    token = request.cookies.get(request.app[COOKIE], "")
    session = request.app[SECRETS].session(token) if token else None
    if session is None:
        raise RefusedError("signed_out", "nobody is signed in here", hint="sign in with person and PIN")
    return session


async def _list_people(request: web.Request) -> web.Response:
    picker = ("id", "name", "name_en", "roles")  # nobody is signed in yet: no more than the picker needs
    people = [person.to_json() for person in request.app[PEOPLE].values()]
    return web.json_response([{key: person[key] for key in picker} for person in people])


async def _who_am_i(request: web.Request) -> web.Response:
    session = _session(request)
    person = request.app[PEOPLE].get(session.person)
    if person is None:
        raise RefusedError("signed_out", "this person is no longer in people.csv")
    return web.json_response({"person": person.to_json(), "csrf": session.csrf})


async def _sign_in(request: web.Request) -> web.Response:
    _check_origin(request)
    fields = await body(request, {"person": str, "pin": str})
    token, session = await request.app[SECRETS].sign_in(fields["person"], fields["pin"], request.remote or "")
    person = request.app[PEOPLE].get(session.person)
    if person is None:
        request.app[SECRETS].sign_out(token)
        raise RefusedError("wrong_pin", "the person or the PIN is wrong")
    response = web.json_response({"person": person.to_json(), "csrf": session.csrf})
    response.set_cookie(request.app[COOKIE], token, httponly=True, samesite="Strict", secure=request.secure, path="/")
    _log.info("%s signed in from %s", person.id, request.remote)
    return response


async def _sign_out(request: web.Request) -> web.Response:
    session = _session(request)
    _check_token(request, session)
    request.app[SECRETS].sign_out(request.cookies[request.app[COOKIE]])
    response = web.json_response({})
    response.del_cookie(request.app[COOKIE], path="/")
    return response


def _check_token(request: web.Request, session: Session) -> None:
    token = request.headers.get("X-CSRF-Token", "").encode(errors="surrogateescape")  # headers may be any bytes
    if not hmac.compare_digest(token, session.csrf.encode()):
        raise RefusedError("csrf", "the X-CSRF-Token header is missing or wrong", hint="sign in again")


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise RefusedError("csrf", f"requests from {origin} are not accepted", hint="open the page of this server")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer: also on streams, redirects and errors. A handler may have been stricter."""
    if named := REQUEST.get():
        response.headers["X-Request-ID"] = named
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.path.startswith("/api/"):
        response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def name_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware: what is logged for a request has its id, and so has the answer. A caller may bring its own."""
    given = request.headers.get("X-Request-ID", "")
    REQUEST.set(given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}")
    return await handler(request)


@web.middleware
async def answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware: a RefusedError, and under `/api/` and `/v1/` every HTTP error, as JSON that says why."""
    try:
        return await handler(request)
    except RefusedError as refused:
        status = _STATUS.get(refused.reason, 409)
        return _error(status, refused.reason, refused.message, refused.hint, refused.retry_s)
    except web.HTTPException as answer:
        if not request.path.startswith(("/api/", "/v1/")) or answer.status < 400:
            raise
        reason = {404: "not_found", 405: "wrong_method", 413: "too_large"}.get(answer.status, "bad_request")
        response = _error(answer.status, reason, answer.reason, "")
        if "Allow" in answer.headers:  # RFC 9110 §15.5.6: what is allowed instead
            response.headers["Allow"] = answer.headers["Allow"]
        return response


def _error(status: int, reason: str, message: str, hint: str, retry_s: float = 0.0) -> web.Response:
    error: dict[str, Any] = {"reason": reason, "message": message, "hint": hint}
    if retry_s:
        error["retry_s"] = round(retry_s)
    return web.json_response({"error": error}, status=status)
