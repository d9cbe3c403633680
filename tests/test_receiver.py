"""The demo's chat robot over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from sitewarden.demo.receiver import Inbox, ReceiverOptions, RobotMode, readable, run_receiver
from sitewarden.errors import PermanentError


@pytest.fixture
async def robot() -> AsyncIterator[aiohttp.ClientSession]:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_receiver(ReceiverOptions(port=0), ready.set_result))
    port = await asyncio.wait_for(ready, 20)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session
    task.cancel()
    await asyncio.wait([task])


async def post(session: aiohttp.ClientSession, path: str, body: object) -> tuple[int, Any]:
    async with session.post(path, json=body) as response:
        return response.status, await response.json()


async def listed(session: aiohttp.ClientSession, after: str = "0") -> Any:
    async with session.get("/api/messages", params={"after": after}) as response:
        return await response.json()


def message(key: str, text: str = "助剂库湿度 82.0 %RH") -> dict[str, object]:
    return {"msgtype": "text", "text": {"content": text}, "key": key}


async def test_answers_like_a_robot_and_shows_what_came(robot: aiohttp.ClientSession) -> None:
    assert await post(robot, "/robot/keepers", message("k1")) == (200, {"errcode": 0, "errmsg": "ok"})
    body = await listed(robot)
    assert body["counts"] == {"arrived": 1, "accepted": 1, "refused": 0, "repeats": 0}
    [shown] = body["messages"]
    assert (shown["robot"], shown["key"], shown["copy"], shown["text"]) == ("keepers", "k1", 1, "助剂库湿度 82.0 %RH")
    assert (await listed(robot, "1"))["messages"] == []
    assert len((await listed(robot, "nonsense"))["messages"]) == 1


async def test_repeats_are_counted_by_robot_and_key(robot: aiohttp.ClientSession) -> None:
    for name, key in (("a", "k1"), ("a", "k1"), ("b", "k1"), ("a", "k2"), ("a", "k1")):
        await post(robot, f"/robot/{name}", message(key))
    body = await listed(robot)
    assert body["counts"]["repeats"] == 2
    assert [m["copy"] for m in reversed(body["messages"])] == [1, 2, 1, 1, 3]


async def test_refuses_with_http_200_and_takes_the_retry_once(robot: aiohttp.ClientSession) -> None:
    assert (await post(robot, "/api/mode", {"mode": "refuse"}))[0] == 200
    status, answer = await post(robot, "/robot/a", message("k1"))
    assert (status, answer["errcode"]) == (200, 45009)
    await post(robot, "/api/mode", {"mode": "ok"})
    assert (await post(robot, "/robot/a", message("k1")))[1]["errcode"] == 0
    body = await listed(robot)
    assert body["counts"] == {"arrived": 2, "accepted": 1, "refused": 1, "repeats": 0}
    assert [m["accepted"] for m in body["messages"]] == [True, False]


async def test_down_hangs_up(robot: aiohttp.ClientSession) -> None:
    await post(robot, "/api/mode", {"mode": "down"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(robot, "/robot/a", message("k1"))
    await post(robot, "/api/mode", {"mode": "ok"})
    assert (await listed(robot))["counts"]["arrived"] == 0


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"not json", b"[1]", b'"text"'])
async def test_garbage_is_an_error_and_is_not_listed(robot: aiohttp.ClientSession, data: bytes) -> None:
    async with robot.post("/robot/a", data=data) as response:
        assert response.status == 400
        assert (await response.json())["errcode"] != 0
    assert (await listed(robot))["messages"] == []


async def test_mode_must_be_known_and_json(robot: aiohttp.ClientSession) -> None:
    assert (await post(robot, "/api/mode", {"mode": "asleep"}))[0] == 400
    async with robot.post("/api/mode", data='{"mode": "down"}') as response:
        assert response.status == 400
    assert (await listed(robot))["mode"] == "ok"


async def test_page(robot: aiohttp.ClientSession) -> None:
    async with robot.get("/") as response:
        page = await response.text()
    assert "群机器人" in page
    assert "http://" not in page
    assert "https://" not in page


async def test_a_taken_port_says_so(robot: aiohttp.ClientSession) -> None:
    port = int(str(robot._base_url).rsplit(":", 1)[1].rstrip("/"))
    with pytest.raises(PermanentError, match=f"port {port}"):
        await run_receiver(ReceiverOptions(port=port))


def test_only_the_last_500_are_kept_and_all_are_counted() -> None:
    inbox = Inbox()
    for number in range(600):
        inbox.take("a", message(f"k{number}"), "2026-11-22T13:06:31.004Z")
    assert len(inbox.messages) == 500
    assert inbox.messages[-1].n == 600
    assert inbox.take("a", message("k0"), "2026-11-22T13:06:31.004Z").copy == 2
    inbox.mode = RobotMode.REFUSE
    assert inbox.take("a", message("k0"), "2026-11-22T13:06:31.004Z").copy == 0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"text": {"content": "a"}}, "a"),
        ({"markdown": {"content": "b"}}, "b"),
        ({"markdown": {"title": "t", "text": "c"}}, "c"),
        ({"text": "d"}, "d"),
        ({"x": "度"}, '{"x": "度"}'),
        ({"text": {"content": 3}}, '{"text": {"content": 3}}'),
    ],
)
def test_readable(body: dict[str, object], text: str) -> None:
    assert readable(body) == text
