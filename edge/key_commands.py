"""Commands about the gateway's own key, over the control socket."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from ..errors import RefusedError
from ..serving.web import body
from ..sync.rotating import Rotating

_PATIENCE_S = 30.0


class KeyCommands:
    """Rotation on demand.

    Args:
        is_linked: whether the site that runs has an uplink: headquarters must hear of a new key.
        check: raises when nothing can be recorded now.
    """

    def __init__(self, rotating: Rotating, is_linked: Callable[[], bool], check: Callable[[], object]) -> None:
        self._rotating, self._is_linked, self._check = rotating, is_linked, check

    def add_to(self, app: web.Application) -> None:
        """Routes of the control socket."""
        app.router.add_post("/v1/key/rotate", self._rotate)

    async def _rotate(self, request: web.Request) -> web.Response:
        await body(request, {})
        self._check()
        if not self._is_linked():
            hint = "[cloud] url in site.toml names headquarters"
            raise RefusedError(
                "no_uplink", "this site has no link to headquarters, which must know a new key", hint=hint
            )
        kid, turned = await self._rotating.rotate(_PATIENCE_S)
        return web.json_response({"kid": kid, "turned": turned, "problem": self._rotating.problem})
