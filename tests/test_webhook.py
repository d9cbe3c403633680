"""The webhook against real endpoints: what counts as accepted, and that nothing an endpoint does raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from sitewarden.edge.alerts.message import Composer
from sitewarden.edge.alerts.webhook import Webhook, judge
from sitewarden.edge.models import ChannelTable
from sitewarden.serving.people import Person

ALARM: dict[str, Any] = {
    "id": "aux_store.th1.humidity.high",
    "name": "助剂库湿度",
    "name_en": "Auxiliary store humidity",
    "kind": "hi",
    "priority": 3,
    "occurrence": 17,
    "value": 78.2,
    "limit": 75.0,
    "unit": "%RH",
    "changed_at": "2026-11-22T15:04:05.000Z",
}
compose = Composer(
    site="恒丰印染",
    timezone="Asia/Shanghai",
    people={"keeper_li": Person(id="keeper_li", name="李库管", name_en="Li", roles=("keeper",), areas=("*",))},
)
FACTS = {
    "key": "k1",
    "seq": 5,
    "person": "keeper_li",
    "role": "keeper",
    "resent": False,
    "kind": "alarm.raised",
    "alarm": ALARM,
}


@asynccontextmanager
async def endpoint(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/robot", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/robot"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_endpoint(answer: bytes, *, hang: bool = False) -> AsyncIterator[str]:
    """Sends these bytes, then closes, or never does."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if hang:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/robot?access_token=secret"
    finally:
        over.set()
        server.close()


async def send(url: str, **changes: Any) -> str:
    table = ChannelTable(**{"id": "robot", "kind": "webhook", "url": url, "timeout_s": 5.0, **changes})
    async with asyncio.timeout(20), Webhook(table) as channel:
        return await channel.send(compose(FACTS))


def answering(**fields: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(**fields)

    return handler


async def test_accepted_and_what_the_robot_got():
    got: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        got.append(await request.json())
        return web.json_response({"errcode": 0, "errmsg": "ok"})

    async with endpoint(handler) as url:
        assert await send(url) == ""
    (message,) = got
    assert (message["key"], message["person"], message["role"], message["resent"]) == (
        "k1",
        "keeper_li",
        "keeper",
        False,
    )
    assert message["alarm"] == ALARM
    content = message["text"]["content"]
    parts = ("3级", "助剂库湿度", "超过上限", "78.2%RH", "75%RH", "仓管员", "报警号 17", "Auxiliary")
    assert all(part in content for part in parts), content


async def test_an_answer_in_pieces_is_read_to_its_end():
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"errcode"', b": 0, ", b'"errmsg": "ok"}'):
            await response.write(piece)
            await asyncio.sleep(0.1)
        return response

    async with endpoint(handler) as url:
        assert await send(url) == ""


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"text": json.dumps({"errcode": 45009, "errmsg": "api freq out of limit"})}, "errcode 45009: api freq out"),
        ({"text": '{"errcode": "0"}'}, "errcode '0'"),
        ({"text": '{"errcode": false}'}, "errcode False"),
        ({"text": '{"errcode": null}'}, "errcode None"),
        ({"text": '{"code": 0}'}, "no field 'errcode'"),
        ({"text": "[0]"}, "no field 'errcode'"),
        ({"text": "<html>ok</html>"}, "not JSON"),
        ({"text": ""}, "not JSON"),
        ({"body": b"\xff\xfe\x00"}, "not JSON"),
        ({"text": "[" * 60_000}, "not JSON"),
        ({"text": '{"errcode": 0}', "status": 500}, "HTTP 500"),
        ({"text": '{"errcode": 0}', "status": 404}, "HTTP 404"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, "HTTP 302"),
        ({"status": 307, "headers": {"Location": "/robot"}}, "HTTP 307"),
        ({"text": '{"errcode": 0, "pad": "' + "x" * 3_000_000 + '"}'}, "longer than 65536 bytes"),
        ({"text": json.dumps({"errcode": 1, "errmsg": "x" * 9000})}, "errcode 1: xxx"),
    ],
)
async def test_refusals(fields: dict[str, Any], why: str):
    async with endpoint(answering(**fields)) as url:
        refusal = await send(url)
    assert why in refusal
    assert len(refusal) <= 200


async def test_the_success_field_is_the_sites_choice():
    async with endpoint(answering(text='{"StatusCode": 7}')) as url:
        assert await send(url, success_field="StatusCode", success_value=7) == ""
        assert "StatusCode 7" in await send(url, success_field="StatusCode", success_value=0)


@pytest.mark.parametrize("begun", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"errcode"'])
async def test_an_endpoint_that_hangs_costs_its_timeout(begun: bytes):
    async with raw_endpoint(begun, hang=True) as url:
        assert await send(url, timeout_s=0.5) == "no answer within 0.5 s"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"errcode"',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{"errcode": 0\r\n',
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
async def test_an_endpoint_that_closes_or_speaks_another_language_refuses(answer: bytes):
    async with raw_endpoint(answer) as url:
        refusal = await send(url)
    assert refusal
    assert "secret" not in refusal


async def test_nobody_listens_and_the_token_stays_secret(free_port):
    refusal = await send(f"http://127.0.0.1:{free_port()}/robot?access_token=secret")
    assert "Connect" in refusal
    assert "secret" not in await send("http://?access_token=secret")
    assert "secret" not in refusal


async def test_one_channel_sends_many_at_once():
    both = asyncio.Barrier(4)

    async def handler(_: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(10):
            await both.wait()
        return web.json_response({"errcode": 0})

    async with endpoint(handler) as url, Webhook(ChannelTable(id="r", kind="webhook", url=url)) as channel:
        assert await asyncio.gather(*(channel.send({}) for _ in range(4))) == [""] * 4


def test_judge():
    assert judge(b'{"errcode": 0}', "errcode", 0) == ""
    assert judge(b'{"errcode": 0.0}', "errcode", 0) != ""
    assert judge(b'{"errcode": NaN}', "errcode", 0) != ""


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"kind": "alarm.reraised", "alarm": {**ALARM, "kind": "hihi"}}, ["报警升级", "超过上上限"]),
        ({"kind": "alarm.reopened"}, ["再次报警"]),
        ({"resent": True}, ["（重发）"]),
        ({"role": "officer"}, ["请安全员李库管确认"]),
        (
            {},
            [
                "【3级报警】助剂库湿度超过上限 78.2%RH（限值 75%RH） 23:04，恒丰印染",
                "报警号 17",
                "above the high limit",
            ],
        ),
        ({"role": "hr", "person": "gone"}, ["请人事确认"]),
        (
            {"alarm": {**ALARM, "kind": "stale", "name": "甲烷无数据", "name_en": "methane: no data", "value": None}},
            ["】甲烷无数据 23:04", "methane: no data."],
        ),
    ],
)
def test_words_of_a_message(changes: dict[str, Any], parts: list[str]):
    content = compose({**FACTS, **changes})["text"]["content"]
    assert all(part in content for part in parts), content
    assert "None" not in content
