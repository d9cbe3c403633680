"""Deliveries on a real journal: born with their record, tried until accepted, one recipient never at another's cost."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sitewarden.edge.alerts.outbox_table import TABLE
from sitewarden.edge.alerts.port import Notice, Outcome, Sent
from sitewarden.edge.alerts.webhook_channel import WebhookChannel, WebhookSettings
from sitewarden.sync.journal import Draft, Journal, rebuild
from sitewarden.sync.sqlite import StoreError
from sitewarden.tests.peers.alert_doubles import (
    OK,
    QUICK,
    TABLES,
    FakeChannel,
    acked,
    alarm,
    attempts,
    climbed,
    closed,
    draft,
    failed,
    notify,
    raised,
    rows,
    running,
    states,
)
from sitewarden.words import now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def never(_: object = None) -> Any:
    return asyncio.Event().wait()


# --- births ---


async def test_both_rows_exist_before_anything_is_sent(path: Path, eventually):
    seen: list[str] = []

    def answer(notice: Notice) -> Sent:
        seen.append(states(path)[notice.key])
        return OK

    robot = FakeChannel(answer)
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([raised("li@robot", "wang@robot")])
        await eventually(lambda: set(states(path).values()) == {"ACCEPTED"}, "both accepted", every_s=0.02)
        assert seen == ["SENDING", "SENDING"]
        assert robot.tries() == {"1-1-li@robot": 1, "1-1-wang@robot": 1}
        assert not any(notice.resent for notice in robot.got)
        assert await made.keys("delivery.accepted") == robot.keys
        await eventually(lambda: made.health.pending == 0, "nothing pending")


async def test_both_rows_exist_or_none_do(path: Path):
    robot = FakeChannel()
    async with running(path, {"robot": robot}) as made:
        given = raised("li@robot", "wang@robot")
        del given.body["notify"][1]["key"]
        with pytest.raises(KeyError):
            await made.journal.append([given])
        assert rows(path) == []
        assert await made.journal.read(0, 10) == []
        assert robot.got == []


async def test_a_record_that_is_not_committed_is_not_sent(path: Path):
    robot = FakeChannel()
    async with running(path, {"robot": robot}) as made:
        await asyncio.sleep(0)
        await made.journal.write(lambda _: None)  # the outbox has begun
        await made.journal.write(lambda c: c.execute("PRAGMA query_only=ON").close())
        made.may_fail = True
        with pytest.raises(StoreError):
            await made.journal.append([raised("li@robot")])
        await asyncio.sleep(0.1)  # nothing to wait for: nothing may be sent
        assert robot.got == []


async def test_every_kind_of_record_that_names_recipients_tells_them(path: Path, eventually):
    why = {"kind": "permit", "id": "p7", "occurrence": 0, "area": "aux_store", "name": "动火", "name_en": "Hot"}
    freeze = {"id": "freeze/permit/p7/0", "scope": "permit", "what": "p7", "why": {**why, "priority": 2}}
    robot = FakeChannel()
    async with running(path, {"robot": robot}) as made:
        drafts = [
            climbed("li@robot"),
            draft("freeze.set", {"freeze": freeze, "notify": notify("f", ["li@robot"])}),
            draft("deviation.opened", {"id": "d1", "subject": freeze["why"], "notify": notify("d", ["li@robot"])}),
            draft("proof.started", {"notify": notify("t", ["li@robot"])}),
            draft("hazard.assigned", {"id": "h1", "name": "栏杆", "notify": notify("h", ["li@robot"])}),
        ]
        await made.journal.append(drafts)
        await eventually(lambda: made.health.pending == 0 and len(robot.got) == 5, "all told")
    told = {notice.facts["kind"]: notice for notice in robot.got}
    assert [kind for kind, notice in told.items() if notice.step] == ["ladder.step"]
    assert told["ladder.step"].facts["step"] == 1
    assert [kind for kind, notice in told.items() if notice.is_test] == ["proof.started"]
    about = {row["kind"]: (row["about"], row["occurrence"]) for row in rows(path)}
    assert about["ladder.step"] == (alarm()["id"], 1)
    assert about["freeze.set"] == ("freeze/permit/p7/0", 0)


# --- attempts ---


async def test_refused_then_accepted_keeps_its_key_and_every_attempt_is_kept(path: Path, eventually):
    robot = FakeChannel(lambda _: OK if len(robot.got) > 3 else failed("errcode 45009"))
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted in the end", every_s=0.02)
        assert robot.tries() == {"1-1-li@robot": 4}
        assert attempts(path, "1-1-li@robot") == ["failed", "failed", "failed", "accepted"]
        (body,) = await made.bodies("delivery.accepted")
        assert (body["person"], body["channel"], body["attempts"]) == ("li", "robot", 4)
        assert await made.records("delivery.failing") == []
        assert not any(notice.resent for notice in robot.got), "it certainly did not arrive before"


async def test_what_may_have_arrived_is_marked_from_then_on(path: Path, eventually):
    sent = [failed(uncertain=True), failed(), OK]
    robot = FakeChannel(lambda _: sent.pop(0))
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: len(robot.got) == 3, "accepted")
    assert [notice.resent for notice in robot.got] == [False, True, True]
    assert "重发" in robot.got[1].text


async def test_later_costs_no_attempt_and_waits_as_long_as_the_channel_says(path: Path, eventually):
    sent = [Sent(outcome=Outcome.LATER, retry_s=0.2), Sent(outcome=Outcome.LATER, retry_s=0.2), OK]
    at_s: list[float] = []

    def answer(_: Notice) -> Sent:
        at_s.append(asyncio.get_running_loop().time())
        return sent.pop(0)

    async with running(path, {"robot": FakeChannel(answer)}) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted", every_s=0.02)
        assert (await made.bodies("delivery.accepted"))[0]["attempts"] == 1
        assert attempts(path, "1-1-li@robot") == ["accepted"]
        assert made.health.channels["robot"].later == 2
    assert min(after - before for before, after in itertools.pairwise(at_s)) >= 0.2


async def test_a_receiver_whose_own_server_wants_it_later_holds_nobody_else_back(path: Path, eventually):
    """Greylisting of li's mail server, for five minutes: wang's message goes at once."""
    grey = Sent(outcome=Outcome.LATER, retry_s=300.0, receiver_only=True)
    mail = FakeChannel(lambda notice: grey if notice.to.person == "li" else OK)
    async with running(path, {"mail": mail}) as made:
        await made.journal.append([raised("li@mail", priority=1)])
        await eventually(lambda: mail.got, "li's server was asked")
        await made.journal.append([raised("wang@mail", n=2, priority=1)])
        await eventually(lambda: states(path)["2-1-wang@mail"] == "ACCEPTED", "wang is told")
        assert [notice.to.person for notice in mail.got] == ["li", "wang"]


async def test_one_recipients_failure_neither_cancels_nor_delays_the_other(path: Path, eventually):
    """li's messages hang or are refused, or the channel breaks on them; each of wang's is accepted at its first try."""
    misdeeds = [never(), never()]

    def answer(notice: Notice) -> Any:
        if notice.to.person == "wang":
            return OK
        if misdeeds:
            return misdeeds.pop()
        raise RuntimeError("a defect of the channel")

    robot = FakeChannel(answer)
    async with running(path, {"robot": robot}) as made:
        for n in range(20):
            await made.journal.append([raised("li@robot", "wang@robot", n=n, priority=1)])
        await eventually(lambda: sum(m.to.person == "wang" for m in robot.got) == 20, "wang is told all", bound_s=10)
        await eventually(lambda: made.health.pending == 20, "only li's are left", bound_s=10)
        assert max(count for key, count in robot.tries().items() if "wang" in key) == 1
        assert not made.task.done()
    assert not misdeeds


async def test_a_channel_that_raises_is_a_failure_of_its_row(path: Path, eventually):
    def answer(_: Notice) -> Sent:
        if len(robot.got) < 3:
            raise ValueError("not a URL")
        return OK

    robot = FakeChannel(answer)
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted", every_s=0.02)
        assert not made.task.done()


async def test_a_dead_channel_does_not_delay_another(path: Path, eventually):
    dead, good = FakeChannel(never), FakeChannel()
    async with running(path, {"dead": dead, "good": good}) as made:
        await made.journal.append([raised("li@dead", "wang@dead", n=n, priority=1) for n in range(30)])
        await eventually(lambda: len(dead.got) == 4, "the dead channel hangs")
        await made.journal.append([raised("li@good", n=99)])
        await eventually(lambda: states(path)["99-1-li@good"] == "ACCEPTED", "told on the other", every_s=0.02)


async def test_five_hundred_that_wait_cost_single_attempts_and_go_as_digests_but_for_the_most_urgent(
    path: Path, eventually
):
    up = False
    robot = FakeChannel(lambda _: OK if up else failed())
    settings = replace(QUICK, retry_base_s=0.2, retry_cap_s=0.4)
    async with running(path, {"robot": robot}, settings=settings) as made:
        await made.journal.append([raised("li@robot", n=n, priority=1 if n == 400 else 3) for n in range(500)])
        await eventually(lambda: made.health.pending == 500, "all pending")
        await eventually(lambda: len(robot.got) >= 8, "some attempts")
        assert len(robot.got) < 20, "a dead channel is asked with one message at a time"
        up = True
        await eventually(lambda: made.health.pending == 0, "all delivered", bound_s=60)
        assert len(await made.keys("delivery.accepted")) == 500
    alone = [notice for notice in robot.arrived if notice.key == "400-1-li@robot"]
    assert [notice.number for notice in alone] == [1]
    assert len(robot.arrived) <= 5


async def test_a_send_that_never_comes_back_is_given_up_and_may_have_arrived(path: Path, eventually):
    robot = FakeChannel(lambda _: never() if len(robot.got) < 2 else OK)
    async with running(path, {"robot": robot}, settings=replace(QUICK, send_limit_s=0.2)) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "second try", every_s=0.02)
    assert [notice.resent for notice in robot.got] == [False, True]


# --- crashes and the store ---


async def test_killed_between_sending_and_accepted(path: Path, eventually):
    """The process dies while the robot has the message: it comes again, once, with the same key, marked."""
    got: list[dict[str, Any]] = []
    hang = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        got.append(await request.json())
        if len(got) == 1:
            await hang.wait()
        return web.json_response({"errcode": 0})

    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(path), url)
    try:
        await eventually(lambda: got, "the robot has it")
        assert states(path) == {"1-1-li@robot": "SENDING"}
        os.kill(dying.pid, signal.SIGKILL)
        await dying.wait()
        hang.set()
        async with WebhookChannel(WebhookSettings(url=url)) as hook, running(path, {"robot": hook}) as made:
            await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted", every_s=0.02)
            assert len(await made.records("delivery.accepted")) == 1
        assert [(body["key"], body["resent"]) for body in got] == [("1-1-li@robot", False), ("1-1-li@robot", True)]
        assert "重发" in got[1]["text"]["content"]
        assert attempts(path, "1-1-li@robot") == ["interrupted", "accepted"]
        async with WebhookChannel(WebhookSettings(url=url)) as hook, running(path, {"robot": hook}) as made:
            await made.journal.append([raised("li@robot", n=2)])
            await eventually(lambda: len(got) == 3, "the next one alone")
        assert got[2]["key"] == "2-1-li@robot"
    finally:
        if dying.returncode is None:
            dying.kill()
        await runner.cleanup()


DYING = """
import asyncio, pathlib, sys
from sitewarden.edge.alerts.webhook_channel import WebhookChannel, WebhookSettings
from sitewarden.tests.peers.alert_doubles import raised, running

async def main(path, url):
    async with WebhookChannel(WebhookSettings(url=url, timeout_s=60.0)) as hook:
        async with running(pathlib.Path(path), {"robot": hook}) as made:
            await made.journal.append([raised("li@robot")])
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_rows_survive_reopen_and_go_on_unmarked(path: Path, eventually):
    async with running(path, {"robot": FakeChannel(lambda _: failed())}) as made:
        await made.journal.append([raised("li@robot", "wang@robot")])
        await eventually(lambda: set(states(path).values()) == {"RETRY"}, "both refused", every_s=0.02)
    robot = FakeChannel()
    async with running(path, {"robot": robot}):
        await eventually(lambda: set(states(path).values()) == {"ACCEPTED"}, "accepted after the restart", every_s=0.02)
    assert sorted(robot.tries()) == ["1-1-li@robot", "1-1-wang@robot"]


@pytest.mark.parametrize("failing_job", ["SENDING", "ACCEPTED"])
async def test_the_stores_error_ends_the_run(path: Path, failing_job: str, eventually):
    """With other deliveries under way; what is not committed must not go on in memory."""
    gate = asyncio.Event()

    async def passed() -> Sent:
        await gate.wait()
        return OK

    robot = FakeChannel(lambda _: passed())
    async with running(path, {"robot": robot}) as made:
        made.may_fail = True
        await made.journal.append([raised("li@robot", "wang@robot", "wu@robot")])
        await eventually(lambda: len(robot.got) == 3, "three are under way")
        await made.journal.write(lambda c: c.execute("PRAGMA query_only=ON").close())
        if failing_job == "SENDING":
            with pytest.raises(StoreError):
                await made.journal.append([raised("li@robot", n=2)])
        gate.set()
        done, _ = await asyncio.wait([made.task], timeout=10)
        assert done, "the run goes on after the store has failed"
        error = made.task.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(StoreError) is not None


async def test_the_table_is_rebuilt_from_records_alone(path: Path, eventually):
    """Every column; attempts are no records, and stay."""
    robot = FakeChannel(lambda m: OK if m.to.person == "li" else failed())
    async with running(path, {"robot": robot}) as made:
        drafts = [raised("li@robot", "wang@robot", "wu@gone"), raised("li@robot", n=2), climbed("wang@robot")]
        await made.journal.append(drafts)
        await eventually(lambda: made.health.pending == 2, "the others ended")
        await made.journal.append([closed(2), raised("wang@robot", n=3), closed(3)])
        await eventually(lambda: len(told_clears(path)) == 1, "the clear is told")
    before, tried = rows(path), attempts(path, "1-1-wang@robot")
    assert len(before) == 7
    async with Journal(path, "gw1", TABLES) as journal:
        await journal.write(lambda connection: rebuild(connection, TABLE))
    assert rows(path) == before
    assert attempts(path, "1-1-wang@robot") == tried


def told_clears(path: Path) -> list[dict[str, Any]]:
    return [row for row in rows(path) if row["kind"] == "delivery.clear" and row["state"] == "ACCEPTED"]


async def test_a_journal_of_an_older_version_begins_no_storm(path: Path, eventually):
    """Alarms that were told and closed long ago are not cleared now, and what was open goes on."""
    entries = [{"key": f"k{n}", "person": "li", "role": "keeper", "channel": "robot"} for n in range(3)]

    def old(kind: str, n: int, **body: Any) -> Draft:
        ended = {"key": f"k{n}", "person": "li", "role": "keeper", "channel": "robot", "alarm": alarm(n)["id"]}
        return draft(kind, {**ended, "occurrence": 1, "attempts": 1, "error": "", **body})

    async with Journal(path, "gw1", TABLES) as journal:
        drafts = [draft("alarm.raised", {"alarm": alarm(n), "notify": [entries[n]]}) for n in range(3)]
        drafts += [old("delivery.accepted", 0), closed(0), closed(1), old("delivery.dead", 1, error="closed before")]
        await journal.append(drafts)
    robot = FakeChannel()
    async with running(path, {"robot": robot}):
        await eventually(lambda: states(path) == {"k0": "ACCEPTED", "k1": "DEAD", "k2": "ACCEPTED"}, "ends")
    assert robot.keys == ["k2"]


async def test_the_heartbeat_turns_while_deliveries_hang(path: Path, eventually):
    robot = FakeChannel(never)
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: robot.got, "sent")
        beat_s = made.health.beat_s
        await eventually(lambda: made.health.beat_s > beat_s, "the loop turns", bound_s=15)


async def test_a_row_keeps_its_first_and_its_newest_attempts(path: Path, monkeypatch: pytest.MonkeyPatch, eventually):
    monkeypatch.setattr("sitewarden.edge.alerts.outbox_queries.FIRST_KEPT", 2)
    monkeypatch.setattr("sitewarden.edge.alerts.outbox_queries.LAST_KEPT", 3)
    robot = FakeChannel(lambda _: failed(str(len(robot.got))))
    quickest = replace(QUICK, retry_base_s=0.001, retry_cap_s=0.001)
    async with running(path, {"robot": robot}, settings=quickest) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: len(robot.got) >= 12, "tried often")
    async with running(path, {"robot": FakeChannel()}) as made:
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted", every_s=0.02)
        assert (await made.bodies("delivery.accepted"))[0]["n"] > 10, "the count is of all"
    assert len(attempts(path, "1-1-li@robot")) in (6, 7)


# --- ends ---


async def test_an_acknowledgement_ends_that_persons_repeats(path: Path, eventually):
    robot = FakeChannel(lambda _: failed())
    async with running(path, {"robot": robot}) as made:
        drafts = [
            raised("li@robot", "wang@robot"),
            raised("li@robot", "wang@robot", kind="alarm.repeated", event="r", count=2),
        ]
        await made.journal.append(drafts)
        await eventually(lambda: len(robot.tries()) == 4, "all were tried")
        await made.journal.append([acked("li")])
        await eventually(lambda: states(path)["1-1r-li@robot"] == "DEAD", "li's repeat ended", every_s=0.02)
        (body,) = await made.bodies("delivery.dead")
        assert (body["key"], body["why"]) == ("1-1r-li@robot", "acked")
        assert {key for key, state in states(path).items() if state != "DEAD"} == {
            "1-1-li@robot",
            "1-1-wang@robot",
            "1-1r-wang@robot",
        }


async def test_ladder_steps_and_repeats_and_things_end_with_the_alarm(path: Path, eventually):
    """Retry while open: a channel that is dead for weeks must not fill the memory."""
    robot = FakeChannel(lambda _: failed())
    async with running(path, {"robot": robot, "siren": robot}) as made:
        repeat = raised("li@robot", kind="alarm.repeated", event="r")
        await made.journal.append([raised("@siren"), repeat, climbed("wang@robot"), raised("li@robot", n=2)])
        await eventually(lambda: made.health.pending == 4, "all wait")
        await made.journal.append([closed()])
        await eventually(lambda: made.health.pending == 1, "ended")
        assert {body["why"] for body in await made.bodies("delivery.dead")} == {"closed"}
    assert states(path)["2-1-li@robot"] in ("RETRY", "SENDING")


async def test_what_is_closed_while_no_outbox_runs_ends_too(path: Path, eventually):
    async with Journal(path, "gw1", TABLES) as journal:
        again = raised("li@robot", occurrence=5)
        await journal.append([raised("li@robot"), closed(reason="superseded_unacked"), again])
    robot = FakeChannel()
    async with running(path, {"robot": robot}):
        wanted = {"1-1-li@robot": "DEAD", "1-5-li@robot": "ACCEPTED"}
        await eventually(lambda: states(path) == wanted, "the new one alone is told", every_s=0.02)
    assert robot.keys == ["1-5-li@robot"]


async def test_a_freeze_that_was_released_before_it_was_told_is_told_as_released(path: Path, eventually):
    why = {"kind": "alarm", "id": "a", "occurrence": 1, "area": "x", "name": "a", "name_en": "a", "priority": 3}
    freeze = {"id": "freeze/alarm/a/1", "scope": "work", "what": "*", "why": why, "released": None}
    over = {**freeze, "released": {"person": "wang", "reason": "done", "at": now().to_json()["utc"]}}
    up = False
    robot = FakeChannel(lambda _: OK if up else failed())
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([draft("freeze.set", {"freeze": freeze, "notify": notify("s", ["li@robot"])})])
        await eventually(lambda: robot.got, "tried")
        await made.journal.append([draft("freeze.released", {"freeze": over, "notify": notify("r", ["li@robot"])})])
        up = True
        await eventually(lambda: states(path) == {"s-li@robot": "DEAD", "r-li@robot": "ACCEPTED"}, "released")


async def test_a_report_that_was_closed_before_it_was_told_is_not_told(path: Path, eventually):
    subject = {"kind": "alarm", "id": "a", "occurrence": 1, "area": "x", "name": "a", "name_en": "a", "priority": 3}
    report = {"id": "deviation/alarm/a/1", "subject": subject, "closed": None}
    robot = FakeChannel(lambda _: failed())
    async with running(path, {"robot": robot}) as made:
        await made.journal.append([draft("deviation.opened", {**report, "notify": notify("o", ["li@robot"])})])
        await eventually(lambda: robot.got, "tried")
        await made.journal.append([draft("deviation.closed", {**report, "closed": {"person": "wang"}})])
        await eventually(lambda: states(path) == {"o-li@robot": "DEAD"}, "given up")


async def test_a_thing_gets_no_clear_and_its_silence_is_nobodys(path: Path, eventually):
    siren = FakeChannel()
    async with running(path, {"siren": siren}) as made:
        await made.journal.append([raised("@siren")])
        await eventually(lambda: states(path) == {"1-1-@siren": "ACCEPTED"}, "told")
        await made.journal.append([closed()])
        await made.journal.write(lambda _: None)
        assert [row["kind"] for row in rows(path)] == ["alarm.raised"]
    assert siren.got[0].to.person == ""
    assert siren.got[0].facts["alarm"]["id"] == alarm()["id"]
