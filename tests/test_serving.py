"""Sign-in, sessions, refusals, headers and live events, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import stat
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sitewarden.errors import PermanentError, RefusedError
from sitewarden.serving import live
from sitewarden.serving.live import Hub, encode, stream
from sitewarden.serving.people import Person
from sitewarden.serving.secrets import SESSION_S, Secrets
from sitewarden.serving.web import PERSON, add_pages, body, make_app, signed_in, still_signed_in

COOKIE = "sitewarden_test"
BODY_LIMIT = 4096
BOUND_S = 30


def person(name: str, *roles: str) -> Person:
    return Person(id=name, name=name.upper(), name_en=name, roles=roles, areas=("*",), phone="13800000001")


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Server:
    """One server process's worth of objects, and what a page needs of it."""

    url: str
    secrets: Secrets
    people: dict[str, Person]
    hub: Hub
    events: list[tuple[int, str]] = field(default_factory=list)

    def announce(self, seq: int, text: str) -> None:
        self.events.append((seq, text))
        self.hub.send("alarm", {"text": text}, seq=seq)


async def commit(request: web.Request) -> web.Response:
    fields = await body(request, {"occurrence": int, "role": (str, type(None))})
    return web.json_response({"by": request[PERSON].id, "occurrence": fields["occurrence"], "role": fields["role"]})


async def refuse(request: web.Request) -> web.Response:
    raise RefusedError(request.match_info["reason"], "no", hint="yes")


def make(secrets: Secrets, dist: Path) -> tuple[web.Application, Server]:
    people = {name: person(name, "keeper") for name in ("p_li", "p_wang")}
    server = Server(url="", secrets=secrets, people=people, hub=Hub())
    app = make_app(people, secrets, cookie=COOKIE, body_limit=BODY_LIMIT)

    async def listen(request: web.Request) -> web.StreamResponse:
        last = int(request.headers.get("Last-Event-ID", "0"))

        async def first() -> AsyncIterator[bytes]:
            yield encode("hello", {})
            for seq, text in server.events:
                if seq > last:
                    yield encode("alarm", {"text": text}, seq=seq)

        with server.hub.listening() as listener:
            return await stream(request, listener, first(), lambda: still_signed_in(request))

    app.router.add_get("/api/v1/live", signed_in(listen))
    app.router.add_post("/api/v1/thing", signed_in(commit))
    app.router.add_get("/api/v1/refuse/{reason}", refuse)
    add_pages(app, dist, "page.html")
    return app, server


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "app.js").write_text("1")
    (folder / "page.html").write_text("<p>page</p>")
    return folder


@pytest.fixture
async def serve(tmp_path: Path, dist: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await serve(clock)`: a server on a free port and the secrets.db of the test."""
    async with AsyncExitStack() as stack:

        async def start(clock: Callable[[], float] | None = None) -> Server:
            secrets = Secrets(tmp_path / "secrets.db", *([clock] if clock else []))
            stack.callback(secrets.close)
            app, server = make(secrets, dist)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return server

        yield start


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address without a name
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=BOUND_S)) as session:
        yield session


async def sign_in(client: aiohttp.ClientSession, server: Server, who: str = "p_li", pin: str = "4711") -> str:
    """The CSRF token."""
    async with client.post(f"{server.url}/api/v1/session", json={"person": who, "pin": pin}) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["csrf"]


async def reason(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    return answer.status, (await answer.json())["error"]["reason"]


# --- secrets.db ------------------------------------------------------------------------------------------------


def test_secrets_are_for_the_owner_only(tmp_path: Path):
    path = tmp_path / "secrets.db"
    path.touch(mode=0o644)
    secrets = Secrets(path)
    try:
        secrets.set_pin("p_li", "4711")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"4711" not in path.read_bytes()
    finally:
        secrets.close()


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12a4", "１２３４", "12 4", "-1234"])
def test_a_pin_is_4_to_12_digits(tmp_path: Path, pin: str):
    secrets = Secrets(tmp_path / "secrets.db")
    try:
        with pytest.raises(PermanentError, match="PIN of p_li: must be 4 to 12 digits"):
            secrets.set_pin("p_li", pin)
    finally:
        secrets.close()


async def test_the_same_pin_has_another_hash_and_no_token_is_stored(tmp_path: Path):
    secrets = Secrets(tmp_path / "secrets.db")
    try:
        for who in ("p_li", "p_wang"):
            secrets.set_pin(who, "4711")
        token, session = await secrets.sign_in("p_li", "4711", "10.0.0.1")
        content = (tmp_path / "secrets.db").read_bytes()
        assert token.encode() not in content
        connection = sqlite3.connect(tmp_path / "secrets.db")
        assert connection.execute("SELECT count(DISTINCT hash) FROM pin").fetchone() == (2,)
        connection.execute("UPDATE session SET expires_utc = expires_utc - ?", (SESSION_S + 1,))
        connection.commit()
        connection.close()
        assert session.person == "p_li"
        assert secrets.session(token) is None  # it is over
    finally:
        secrets.close()


# --- sign-in ---------------------------------------------------------------------------------------------------


async def test_sign_in_and_out(serve, client):
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    async with client.get(f"{server.url}/api/v1/session") as answer:
        assert await reason(answer) == (401, "signed_out")
    async with client.post(f"{server.url}/api/v1/session", json={"person": "p_li", "pin": "4711"}) as answer:
        given = await answer.json()
        cookie = answer.headers.getall("Set-Cookie")
        assert given["person"] == {"id": "p_li", "name": "P_LI", "name_en": "p_li", "roles": ["keeper"], "areas": ["*"]}
        assert len(cookie) == 1
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie[0].split(";")}
        assert answer.headers["Cache-Control"] == "no-store"
    async with client.get(f"{server.url}/api/v1/session") as answer:
        assert await answer.json() == given
    async with client.delete(f"{server.url}/api/v1/session") as answer:
        assert await reason(answer) == (403, "csrf")
    async with client.delete(f"{server.url}/api/v1/session", headers={"X-CSRF-Token": given["csrf"]}) as answer:
        assert answer.status == 200
    async with client.get(f"{server.url}/api/v1/session") as answer:
        assert await reason(answer) == (401, "signed_out")


async def test_the_picker_shows_people_without_phones(serve, client):
    server = await serve()
    async with client.get(f"{server.url}/api/v1/people") as answer:
        assert [sorted(one) for one in await answer.json()] == [["id", "name", "name_en", "roles"]] * 2


@pytest.mark.parametrize(
    ("who", "pin"), [("p_li", "4712"), ("p_wang", "4711"), ("nobody", "4711"), ("", ""), ("p_li", "")]
)
async def test_wrong_pin(serve, client, who: str, pin: str):
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    async with client.post(f"{server.url}/api/v1/session", json={"person": who, "pin": pin}) as answer:
        assert await reason(answer) == (401, "wrong_pin")
        assert "Set-Cookie" not in answer.headers


async def test_a_pin_of_somebody_who_left_opens_nothing(serve, client):
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    await sign_in(client, server)
    del server.people["p_li"]
    async with client.get(f"{server.url}/api/v1/session") as answer:
        assert await reason(answer) == (401, "signed_out")
    async with client.get(f"{server.url}/api/v1/live") as answer:
        assert await reason(answer) == (401, "signed_out")
    async with client.post(f"{server.url}/api/v1/session", json={"person": "p_li", "pin": "4711"}) as answer:
        assert await reason(answer) == (401, "wrong_pin")


async def test_five_wrong_pins_cost_time_that_grows(serve, client):
    clock = Clock()
    server = await serve(clock)
    server.secrets.set_pin("p_li", "4711")

    async def attempt(pin: str, who: str = "p_li") -> tuple[int, str]:
        async with client.post(f"{server.url}/api/v1/session", json={"person": who, "pin": pin}) as answer:
            if answer.status == 200:
                return 200, ""
            return answer.status, (await answer.json())["error"]["hint" if answer.status == 429 else "reason"]

    for _ in range(5):
        assert await attempt("0000") == (401, "wrong_pin")
    assert await attempt("4711") == (429, "wait 30 s")  # the right one does not help now
    clock.now_s += 29
    assert await attempt("4711") == (429, "wait 1 s")
    clock.now_s += 1
    assert await attempt("0000") == (401, "wrong_pin")
    assert await attempt("0000") == (429, "wait 60 s")
    clock.now_s += 60
    assert await attempt("4711") == (200, "")
    assert await attempt("0000") == (401, "wrong_pin")  # forgiven


async def test_waits_end_somewhere(serve):
    clock = Clock()
    secrets = (await serve(clock)).secrets
    secrets.set_pin("p_li", "4711")
    for _ in range(40):
        clock.now_s += 900
        with pytest.raises(RefusedError, match="wrong"):
            await secrets.sign_in("p_li", "0000", "10.0.0.1")
    for address in ("10.0.0.1", "10.0.0.2"):
        with pytest.raises(RefusedError) as refused:
            await secrets.sign_in("p_li", "0000", address)
        assert (refused.value.reason, refused.value.retry_s) == ("too_many_tries", 900)


async def test_nobody_locks_a_colleague_out_from_another_device(serve):
    secrets = (await serve(Clock())).secrets
    secrets.set_pin("p_li", "4711")
    for n in range(9):
        with pytest.raises(RefusedError) as refused:
            await secrets.sign_in("p_li", "0000", "10.0.0.1")
        assert refused.value.reason == ("wrong_pin" if n < 5 else "too_many_tries")
    assert (await secrets.sign_in("p_li", "4711", "10.0.0.2"))[1].person == "p_li"


async def test_a_burst_of_guesses_is_no_way_round(serve, client):
    server = await serve(Clock())
    server.secrets.set_pin("p_li", "4711")

    async def attempt(n: int) -> int:
        async with client.post(f"{server.url}/api/v1/session", json={"person": "p_li", "pin": f"{n:04}"}) as answer:
            return answer.status

    statuses = await asyncio.gather(*(attempt(n) for n in range(20)))
    assert sorted(statuses) == [401] * 5 + [429] * 15


async def test_guessing_names_costs_nobody_a_sign_in(serve):
    secrets = (await serve(Clock())).secrets
    secrets.set_pin("p_li", "4711")
    reasons = []
    for n in range(41):
        with pytest.raises(RefusedError) as refused:
            await secrets.sign_in(f"p_{n}", "0000", "10.0.0.1")
        reasons.append(refused.value.reason)
    assert reasons == ["wrong_pin"] * 40 + ["too_many_tries"]
    with pytest.raises(RefusedError, match="wrong"):
        await secrets.sign_in("p_99", "0000", "10.0.0.2")
    assert (await secrets.sign_in("p_li", "4711", "10.0.0.1"))[1].person == "p_li"


async def test_sessions_survive_a_restart(serve, client):
    first = await serve()
    first.secrets.set_pin("p_li", "4711")
    csrf = await sign_in(client, first)
    first.secrets.close()
    second = await serve()
    body_ = {"occurrence": 1, "role": None}
    async with client.post(f"{second.url}/api/v1/thing", json=body_, headers={"X-CSRF-Token": csrf}) as answer:
        assert (await answer.json())["by"] == "p_li"


async def test_a_new_pin_ends_the_sessions(serve, client):
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    await sign_in(client, server)
    server.secrets.set_pin("p_wang", "1111")
    async with client.get(f"{server.url}/api/v1/session") as answer:
        assert answer.status == 200
    server.secrets.set_pin("p_li", "4712")
    async with client.get(f"{server.url}/api/v1/session") as answer:
        assert await reason(answer) == (401, "signed_out")


async def test_checking_a_pin_does_not_hold_up_the_others(serve):
    """The hash is computed off the loop: the loop turns while several are checked."""
    secrets = (await serve()).secrets
    loop_thread, seen = threading.get_ident(), []
    from sitewarden.serving import secrets as module

    real = module._fits
    try:
        module._fits = lambda stored, pin: seen.append(threading.get_ident()) or real(stored, pin)
        with pytest.raises(RefusedError):
            await secrets.sign_in("p_li", "0000", "10.0.0.1")
    finally:
        module._fits = real
    assert seen
    assert loop_thread not in seen


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example"])
async def test_another_page_cannot_sign_in(serve, client, origin: str):
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    fields = {"person": "p_li", "pin": "4711"}
    async with client.post(f"{server.url}/api/v1/session", json=fields, headers={"Origin": origin}) as answer:
        assert await reason(answer) == (403, "csrf")
    async with client.post(f"{server.url}/api/v1/session", json=fields, headers={"Origin": server.url}) as answer:
        assert answer.status == 200


# --- bad input -------------------------------------------------------------------------------------------------

GOOD = {"occurrence": 17, "role": "keeper"}


@pytest.fixture
async def signed(serve, client) -> tuple[Server, str]:
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    return server, await sign_in(client, server)


@pytest.mark.parametrize("fields", [GOOD, {"occurrence": 17, "role": None}, {"occurrence": 17}])
async def test_good_bodies(signed, client, fields: dict[str, Any]):
    server, csrf = signed
    async with client.post(f"{server.url}/api/v1/thing", json=fields, headers={"X-CSRF-Token": csrf}) as answer:
        assert answer.status == 200
        assert await answer.json() == {"by": "p_li", "occurrence": 17, "role": fields.get("role")}


BAD_BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"occurrence":17,"role":"\xff"}',
    "a list": b"[]",
    "a number": b"17",
    "null": b"null",
    "unknown field": json.dumps({**GOOD, "force": True}).encode(),
    "missing field": b'{"role":"keeper"}',
    "text for a number": b'{"occurrence":"17","role":"keeper"}',
    "true for a number": b'{"occurrence":true,"role":"keeper"}',
    "a fraction": b'{"occurrence":1.5,"role":"keeper"}',
    "null for a number": b'{"occurrence":null,"role":"keeper"}',
    "a number for text": b'{"occurrence":1,"role":5}',
    "a list for text": b'{"occurrence":1,"role":["keeper"]}',
    "a digit too many": b'{"occurrence":' + b"9" * 4000 + b"9" * 80 + b',"role":null}',
    "half a character": b'{"occurrence":1,"role":"\\ud83d"}',
    "very deep": b"[" * 4000,
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_bodies(signed, client, name: str):
    server, csrf = signed
    headers = {"X-CSRF-Token": csrf, "Content-Type": "application/json"}
    data = BAD_BODIES[name]
    async with client.post(f"{server.url}/api/v1/thing", data=data[:BODY_LIMIT], headers=headers) as answer:
        assert await reason(answer) == (400, "bad_request"), await answer.text()


async def test_the_message_names_the_field(signed, client):
    server, csrf = signed
    for fields, wanted in (
        ({**GOOD, "force": True}, "force: unknown field (known: occurrence, role)"),
        ({"occurrence": "17"}, "occurrence: missing or of the wrong type (got '17')"),
    ):
        async with client.post(f"{server.url}/api/v1/thing", json=fields, headers={"X-CSRF-Token": csrf}) as answer:
            assert (await answer.json())["error"]["message"] == wanted


@pytest.mark.parametrize("fields", [{"person": "\ud83d", "pin": "4711"}, {"person": "p_li", "pin": "\udfff"}])
async def test_half_characters_at_sign_in(serve, client, fields: dict[str, str]):
    server = await serve()
    server.secrets.set_pin("p_li", "4711")
    async with client.post(f"{server.url}/api/v1/session", json=fields) as answer:
        assert await reason(answer) == (400, "bad_request")


async def test_an_oversized_body(signed, client):
    server, csrf = signed
    data = b'{"role":"' + b"x" * BODY_LIMIT + b'"}'
    headers = {"X-CSRF-Token": csrf, "Content-Type": "application/json"}
    async with client.post(f"{server.url}/api/v1/thing", data=data, headers=headers) as answer:
        assert await reason(answer) == (413, "too_large")


@pytest.mark.parametrize("charset", ["nonsense", "utf-16"])
async def test_an_odd_charset(signed, client, charset: str):
    server, csrf = signed
    headers = {"X-CSRF-Token": csrf, "Content-Type": f"application/json; charset={charset}"}
    async with client.post(f"{server.url}/api/v1/thing", data=b'{"occurrence":1}', headers=headers) as answer:
        status, why = await reason(answer)
        assert 400 <= status < 500
        assert why == "bad_request"


async def raw(server: Server, head: str, data: bytes = b"") -> bytes:
    """What the server answers to bytes that a client library would not send."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    text = head.format(host=f"{host}:{port}") + f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(text.encode("latin-1") + data)
    try:
        return await asyncio.wait_for(reader.read(), BOUND_S)
    finally:
        writer.close()


async def test_a_cookie_or_token_that_is_not_text(signed, client):
    server, _ = signed
    answer = await raw(server, f"GET /api/v1/session HTTP/1.1\r\nHost: {{host}}\r\nCookie: {COOKIE}=\xff\xfe\r\n")
    assert b" 401 " in answer.splitlines()[0]
    (cookie,) = [morsel.value for morsel in client.cookie_jar]
    head = f"POST /api/v1/thing HTTP/1.1\r\nHost: {{host}}\r\nCookie: {COOKIE}={cookie}\r\nX-CSRF-Token: \xff\xfe\r\n"
    answer = await raw(server, head, b"{}")
    assert b" 403 " in answer.splitlines()[0]


# --- what is refused, and how it is said -----------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_a_change_needs_the_token(signed, client, token: str | None):
    server, _ = signed
    headers = {} if token is None else {"X-CSRF-Token": token}
    async with client.post(f"{server.url}/api/v1/thing", json=GOOD, headers=headers) as answer:
        assert await reason(answer) == (403, "csrf")


async def test_the_token_of_another_session_is_wrong(signed, client):
    server, csrf = signed
    server.secrets.set_pin("p_wang", "1111")
    await sign_in(client, server, "p_wang", "1111")
    async with client.post(f"{server.url}/api/v1/thing", json=GOOD, headers={"X-CSRF-Token": csrf}) as answer:
        assert await reason(answer) == (403, "csrf")


async def test_without_a_session_nothing(serve):
    server = await serve()
    async with aiohttp.ClientSession() as nobody:
        for method, path in (("POST", "thing"), ("GET", "live"), ("DELETE", "session"), ("GET", "session")):
            async with nobody.request(method, f"{server.url}/api/v1/{path}") as answer:
                assert await reason(answer) == (401, "signed_out")


@pytest.mark.parametrize(
    ("why", "status"), [("wrong_pin", 401), ("not_your_role", 403), ("no_such_alarm", 404), ("old_occurrence", 409)]
)
async def test_a_refusal_is_json(serve, client, why: str, status: int):
    server = await serve()
    async with client.get(f"{server.url}/api/v1/refuse/{why}") as answer:
        assert answer.status == status
        assert await answer.json() == {"error": {"reason": why, "message": "no", "hint": "yes"}}


@pytest.mark.parametrize(
    ("method", "path", "status", "why"),
    [
        ("GET", "nowhere", 404, "not_found"),
        ("PUT", "session", 405, "wrong_method"),
        ("GET", "thing", 405, "wrong_method"),
    ],
)
async def test_what_is_not_there(serve, client, method: str, path: str, status: int, why: str):
    server = await serve()
    async with client.request(method, f"{server.url}/api/v1/{path}") as answer:
        assert await reason(answer) == (status, why)


async def test_security_headers_on_everything(signed, client):
    server, _ = signed
    paths = ["/", "/assets/app.js", "/assets/none.js", "/nowhere", "/api/v1/people", "/api/v1/nowhere", "/api/v1/live"]
    for path in [*paths, "/api/v1/refuse/csrf"]:
        async with client.get(f"{server.url}{path}") as answer:
            headers = answer.headers
            assert headers.get("X-Content-Type-Options") == "nosniff", path
            assert "default-src 'self'" in headers["Content-Security-Policy"], path
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
            assert headers["Referrer-Policy"] == "no-referrer", path
            if path.startswith("/api/"):
                assert headers["Cache-Control"] == "no-store", path


async def test_pages_that_are_not_built_say_so(serve, client, dist: Path):
    (dist / "page.html").unlink()
    server = await serve()
    async with client.get(f"{server.url}/") as answer:
        assert answer.status == 503
        assert "make web" in await answer.text()


@pytest.mark.parametrize("path", ["/assets/../page.html", "/assets/%2e%2e/page.html", "/assets/..%2f..%2fsecrets.db"])
async def test_nothing_beside_the_assets(serve, path: str):
    server = await serve()
    answer = await raw(server, f"GET {path} HTTP/1.1\r\nHost: {{host}}\r\n")
    assert b" 404 " in answer.splitlines()[0] or b" 403 " in answer.splitlines()[0]


# --- live events -----------------------------------------------------------------------------------------------


async def frames(answer: aiohttp.ClientResponse, wanted: int) -> list[dict[str, str]]:
    """The next events; comments are `{"": text}`."""
    found = []
    while len(found) < wanted:
        block = (await asyncio.wait_for(answer.content.readuntil(b"\n\n"), BOUND_S)).decode()
        found.append(dict(line.split(": ", 1) for line in block.strip().splitlines()))
    return found


async def test_replay_then_live(signed, client, eventually):
    server, _ = signed
    server.events = [(1, "one"), (2, "two"), (3, "three")]
    async with client.get(f"{server.url}/api/v1/live", headers={"Last-Event-ID": "1"}) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no"
        got = await frames(answer, 3)
        assert [frame["event"] for frame in got] == ["hello", "alarm", "alarm"]
        server.announce(4, "四\nlines")
        server.hub.send("values", {"points": []})
        got += await frames(answer, 2)
        assert [frame.get("id") for frame in got] == [None, "2", "3", "4", None]
        assert json.loads(got[3]["data"]) == {"text": "四\nlines"}
        assert len(server.hub) == 1
    await eventually(lambda: server.hub.send("values", {}) or not len(server.hub), "the page is forgotten")


async def test_silence_is_kept_alive(signed, client, monkeypatch: pytest.MonkeyPatch):
    server, _ = signed
    monkeypatch.setattr(live, "_KEEP_ALIVE_S", 0.05)
    async with client.get(f"{server.url}/api/v1/live") as answer:
        assert await frames(answer, 4) == [{"event": "hello", "data": "{}"}, *[{"": "alive"}] * 3]
        server.announce(1, "one")
        while "event" not in (frame := (await frames(answer, 1))[0]):
            assert frame == {"": "alive"}
        assert frame["id"] == "1"


async def test_live_events_end_with_the_session(signed, client, monkeypatch: pytest.MonkeyPatch):
    server, _ = signed
    monkeypatch.setattr(live, "_KEEP_ALIVE_S", 0.05)
    async with client.get(f"{server.url}/api/v1/live") as answer:
        await frames(answer, 3)
        (cookie,) = [morsel.value for morsel in client.cookie_jar]
        server.secrets.sign_out(cookie)
        async with asyncio.timeout(BOUND_S):
            await answer.content.read()
    assert not len(server.hub)


async def stall(client: aiohttp.ClientSession, server: Server) -> socket.socket:
    """A page that asks for live events and reads nothing."""
    (cookie,) = [morsel.value for morsel in client.cookie_jar]
    host, port = server.url.removeprefix("http://").split(":")
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stalled, (host, int(port)))
    head = f"GET /api/v1/live HTTP/1.1\r\nHost: {host}\r\nCookie: {COOKIE}={cookie}\r\n\r\n"
    await loop.sock_sendall(stalled, head.encode())
    return stalled


async def read_out(stalled: socket.socket) -> str:
    text = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while part := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stalled, 1 << 16), BOUND_S):
            text += part
    return text.decode(errors="replace")


async def test_a_page_that_does_not_read_is_ended_and_finds_everything_on_its_return(
    signed, client, monkeypatch, eventually
):
    server, _ = signed
    monkeypatch.setattr(live, "_QUEUE", 20)
    stalled = await stall(client, server)
    await eventually(lambda: len(server.hub) == 1, "the page listens", every_s=0.01)
    seq = 0
    async with client.get(f"{server.url}/api/v1/live") as reader:
        await frames(reader, 1)
        while len(server.hub) == 2:
            seq += 1
            assert seq < 2000
            server.announce(seq, "x" * 50_000)
            assert (await frames(reader, 1))[0]["id"] == str(seq)  # the other one gets each at once
    text = await read_out(stalled)  # its connection was ended without its help
    stalled.close()
    got = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert got == list(range(1, len(got) + 1))
    assert len(got) < seq
    last = got[-1] - 1 if got else 0  # the newest may have come in part
    async with client.get(f"{server.url}/api/v1/live", headers={"Last-Event-ID": str(last)}) as again:
        rest = (await frames(again, 1 + seq - last))[1:]
        assert [int(frame["id"]) for frame in rest] == list(range(last + 1, seq + 1))


async def test_a_page_that_breaks_off_is_no_error(signed, client, eventually, caplog):
    server, _ = signed
    stalled = await stall(client, server)
    await eventually(lambda: len(server.hub) == 1, "the page listens", every_s=0.01)
    for seq in range(1, 200):  # until a write waits for it
        server.announce(seq, "x" * 50_000)
        await asyncio.sleep(0)
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stalled.close()  # a reset, as of a phone that lost its network
    await eventually(lambda: not len(server.hub), "the page is forgotten", every_s=0.01)
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


async def test_nobody_listens(serve):
    server = await serve()
    server.announce(1, "one")
    assert len(server.hub) == 0
