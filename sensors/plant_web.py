"""The simulated plant's control page and its JSON API.

Not signed in: it listens on loopback only and controls a simulation. A change needs `Content-Type: application/json`,
which no foreign web page can send here without a preflight that is never answered.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from ..errors import RefusedError
from .plant_model import DeviceMode, Plant

_PLANT = web.AppKey("plant", Plant)
_PAGE = Path(__file__).with_name("plant_page.html")
_STATUS = {"no_such_point": 404, "no_such_device": 404, "not_json": 415}


def plant_app(plant: Plant) -> web.Application:
    """`GET /`, `GET /api/points`, `POST /api/points/{id}`, `POST /api/devices/{id}`."""
    app = web.Application(client_max_size=4096, middlewares=[_refusals])
    app[_PLANT] = plant
    app.router.add_get("/", _page)
    app.router.add_get("/api/points", _points)
    app.router.add_post("/api/points/{id}", _set_point)
    app.router.add_post("/api/devices/{id}", _set_device)
    return app


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as error:
        body = {"error": {"reason": error.reason, "message": error.message, "hint": error.hint}}
        return web.json_response(body, status=_STATUS.get(error.reason, 400))


async def _page(_: web.Request) -> web.Response:
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return web.Response(text=_PAGE.read_text("utf-8"), content_type="text/html", headers=headers)


async def _points(request: web.Request) -> web.Response:
    return web.json_response(request.app[_PLANT].to_json(), headers={"Cache-Control": "no-store"})


async def _set_point(request: web.Request) -> web.Response:
    body = await _json_object(request)
    if "value" not in body:
        raise RefusedError("bad_request", "the field `value` is missing", hint='{"value": 82.0} or {"value": null}')
    value = body["value"]
    request.app[_PLANT].hold(request.match_info["id"], None if value is None else _number("value", value))
    return await _points(request)


async def _set_device(request: web.Request) -> web.Response:
    body = await _json_object(request)
    try:
        mode = DeviceMode(str(body.get("mode")))
    except ValueError:
        hint = f"one of {', '.join(DeviceMode)}"
        raise RefusedError("bad_request", f"mode cannot be {body.get('mode')!r}", hint=hint) from None
    late_s = body.get("late_s")
    late = None if late_s is None else _number("late_s", late_s)
    request.app[_PLANT].set_mode(request.match_info["id"], mode, late)
    return await _points(request)


async def _json_object(request: web.Request) -> dict[str, object]:
    if request.content_type != "application/json":
        raise RefusedError("not_json", "the body must be JSON", hint="send Content-Type: application/json")
    try:
        body = await request.json()
    except ValueError:
        raise RefusedError("bad_request", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise RefusedError("bad_request", "the body is not a JSON object")
    return body


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError("bad_request", f"{name} must be a number (got {value!r})")
    return float(value)
