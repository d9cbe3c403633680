"""Enrolment, rotation and revocation over real sockets: who becomes known at headquarters, and who does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud import enrol_store
from sitewarden.cloud.app import SOCKET, run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.enrolling import MOST_PER_ADDRESS, WINDOW_S, Rate
from sitewarden.errors import RefusedError
from sitewarden.serving.people import Person
from sitewarden.serving.secrets import Secrets
from sitewarden.sync import wire
from sitewarden.sync.checkpoints import Checkpoints
from sitewarden.sync.claim_file import BY_LINK, ClaimFiles, Names, OpenClaim
from sitewarden.sync.claims import Answer, Request, claim_of, fingerprint, make_answer, make_code, plain_code
from sitewarden.sync.cloud_client import CloudClient, UplinkOptions
from sitewarden.sync.enrolling import STRANGER, Enrolling, ask, look
from sitewarden.sync.evidence import examine
from sitewarden.sync.evidence_state import EvidenceHealth
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.key_ring import HEADQUARTERS, NEXT, OWN, KeyRing, pin, pinned
from sitewarden.sync.keys import key_id, load_or_create_key, public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.notes import origin_of, parse_note, verify_note
from sitewarden.sync.retrying import LinkError
from sitewarden.sync.rotating import Rotating, declare_key
from sitewarden.sync.rotations import REPLACED, ROTATED
from sitewarden.sync.uplink import run_uplink
from sitewarden.sync.witnessing import Witnessing
from sitewarden.words import now

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
LIU = Person(id="p_liu", name="刘信息", name_en="Liu", roles=("it",), areas=("*",))
WANG = Person(id="p_wang", name="王安全", name_en="Wang", roles=("officer",), areas=("*",))
PIN = "135790"
NAMES = Names(gateway="gw1", name="一厂", name_en="Plant 1")


# --- both ends ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the length of the block; when it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        yield task
        task.cancel()


@dataclass
class Headquarters:
    data: Path
    port: int

    async def tell(self, path: str, **fields: Any) -> tuple[int, Any]:
        """As the commands do, over the socket of the data folder."""
        connector = aiohttp.UnixConnector(str(self.data / SOCKET))
        async with aiohttp.ClientSession(connector=connector) as session:
            method = "POST" if fields else "GET"
            async with session.request(method, f"http://cloud/v1/enrolment{path}", json=fields or None) as reply:
                return reply.status, await reply.json()

    async def approve(self, code: str, gateway: str = "gw1", **more: Any) -> tuple[int, Any]:
        return await self.tell("/approve", **({"gateway": gateway, "code": code, "id": None, "replace": False} | more))

    async def revoke(self, gateway: str = "gw1", kid: str | None = None) -> tuple[int, Any]:
        return await self.tell("/revoke", gateway=gateway, kid=kid, reason=" 被盗\nx forged ")

    async def keys(self, gateway: str = "gw1") -> dict[str, str]:
        """Key id to state."""
        listed = (await self.tell(""))[1]["gateways"]
        return {key["kid"]: key["state"] for one in listed if one["gateway"] == gateway for key in one["keys"]}

    async def pending(self) -> list[dict[str, Any]]:
        return (await self.tell(""))[1]["pending"]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.data / "cloud.db")) as connection:
            return connection.execute(sql, values).fetchall()


@contextlib.asynccontextmanager
async def headquarters(data: Path, *gateways: GatewayTable) -> AsyncIterator[Headquarters]:
    data.mkdir(exist_ok=True)
    with contextlib.closing(Secrets(data / "secrets.db")) as secrets:
        for person in (LIU, WANG):
            secrets.set_pin(person.id, PIN)
    table = CloudTable(name="总部", name_en="HQ", port=0)
    config = CloudConfig(cloud=table, gateway=gateways, people={LIU.id: LIU, WANG.id: WANG})
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with running(run_cloud(config, data, ready=up.set_result)):
        yield Headquarters(data, await up)


@dataclass
class Gateway:
    data: Path
    journal: Journal
    ring: KeyRing
    checkpoints: Checkpoints
    rotating: Rotating
    health: UplinkHealth = field(default_factory=UplinkHealth)

    @property
    def code(self) -> str:
        shown = self.health.enrolment or {}
        return shown.get("code", "") if shown.get("state") == "pending" else ""

    async def say(self, count: int = 1) -> None:
        await self.journal.append(
            [Draft(kind="test.said", at=now(), actor="gateway", body={"i": i}) for i in range(count)]
        )

    async def enrolled(self, answer: Answer) -> None:
        pass

    def client(self, port: int) -> CloudClient:
        return CloudClient(options(port), self.ring.key, UplinkHealth())

    def linked(self, port: int) -> contextlib.AbstractAsyncContextManager[Any]:
        enrolling = Enrolling(self.ring, lambda: NAMES, self.enrolled, look_s=0.02, poll_s=0.05, after_refusal_s=0.1)
        witnessing = Witnessing(self.checkpoints, look_s=0.1, trusted=lambda: pinned(self.data))
        also = [enrolling.run, self.rotating.run, witnessing.run]
        return running(run_uplink(self.journal, None, self.ring.key, options(port), self.health, also=also))

    def is_settled(self) -> bool:
        return self.health.state == "up" and not self.health.backlog_records


def options(port: int) -> UplinkOptions:
    url = f"http://127.0.0.1:{port}"
    return UplinkOptions(url=url, gateway="gw1", backoff_max_s=0.05, contact_s=0.2, timeout_s=10)


@contextlib.asynccontextmanager
async def gateway(data: Path, step: Callable[[int], None] = lambda _: None) -> AsyncIterator[Gateway]:
    data.mkdir(exist_ok=True)
    ring = KeyRing(data)
    async with Journal(data / "journal.db", "gw1") as journal:
        await declare_key(journal, ring)
        checkpoints = Checkpoints(journal, ring.key, EvidenceHealth(), every_s=0.1)
        rotating = Rotating(ring, journal, (checkpoints.use,), look_s=0.05, step=step)
        async with running(checkpoints.run()):
            await checkpoints.ready.wait()
            yield Gateway(data, journal, ring, checkpoints, rotating)


def file_of(data: Path) -> Path:
    return data / "journal.db"


Eventually = Callable[..., Awaitable[object]]


# --- the claim code ----------------------------------------------------------------------------------------------


def test_a_code_may_be_typed_as_it_is_read():
    assert plain_code(" 7k3d-qoxn ") == "7K3D-Q0XN"
    assert plain_code("iL0O 2345 6789") == "1100-2345-6789"
    for wrong in ("7K3D-Q0X", "7K3D-Q0XU", "", "7K3D-Q0XN-1"):
        with pytest.raises(RefusedError) as refused:
            plain_code(wrong)
        assert refused.value.reason == "no_code"
    assert plain_code(make_code()) != plain_code(make_code())


def test_a_code_says_nothing_about_another_request_key_or_gateway():
    key, other = public_key_text(OTHER_KEY), public_key_text(Ed25519PrivateKey.generate())
    claim = claim_of("7K3D-Q0XN", "gw1", key, bytes(16))
    assert claim_of("7K3D-Q0XN", "gw1", key, bytes(16)) == claim
    for another in (("7K3D-Q0XP", "gw1", key), ("7K3D-Q0XN", "gw2", key), ("7K3D-Q0XN", "gw1", other)):
        assert claim_of(*another, bytes(16)).commitment != claim.commitment
    assert claim.commitment != claim.proof


def test_the_fingerprint_begins_with_the_keys_id():
    assert fingerprint(OTHER_KEY).replace(" ", "").startswith(key_id(OTHER_KEY))
    assert [len(group) for group in fingerprint(OTHER_KEY).split(" ")] == [4] * 8


# --- over the network --------------------------------------------------------------------------------------------


async def test_a_gateway_that_nobody_knows_becomes_known_by_its_code(tmp_path: Path, eventually: Eventually):
    """The running gateway asks by itself, and goes on by itself."""
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        await site.say(20)
        async with site.linked(hq.port):
            await eventually(lambda: site.code, "the gateway shows a code")
            (asked,) = await hq.pending()
            assert asked["fingerprint"] == (site.health.enrolment or {})["fingerprint"] == fingerprint(site.ring.key)
            assert (asked["gateway"], asked["name"], asked["replaces"]) == ("gw1", "一厂", False)
            assert site.code not in json.dumps(hq.rows("SELECT * FROM enrolment")), "the code does not travel"
            status, answer = await hq.approve(site.code)
            assert (status, answer["kid"]) == (200, key_id(site.ring.key))
            await eventually(site.is_settled, "everything is sent")
            await eventually(lambda: pinned(site.data), "headquarters' key is believed")
            await eventually(lambda: site.health.enrolment is None, "no code is shown any more")
            await eventually(lambda: site.checkpoints.health.witnessed >= 20, "headquarters countersigns")
        key = public_key_text(load_or_create_key(hq.data / "witness.key"))
        assert (site.data / HEADQUARTERS).read_text().strip() == key
        assert hq.rows("SELECT count(*) FROM record") == [(site.journal.head()[0],)]
        assert await hq.pending() == []
        assert not (site.data / BY_LINK).exists()
        listed = (await hq.tell(""))[1]["gateways"]
        assert [(one["gateway"], one["name"]) for one in listed] == [("gw1", "一厂")]


async def test_what_was_approved_while_the_gateway_was_off_is_believed(tmp_path: Path, eventually: Eventually):
    """Its uplink is accepted at once, and the answer to its request still says whom to believe."""
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        claim, _ = await asked(site, hq)
        assert (await hq.approve(claim.code))[0] == 200
        async with site.linked(hq.port):
            await eventually(lambda: pinned(site.data), "headquarters' key is believed")
            await eventually(lambda: not (site.data / BY_LINK).exists(), "the request is over")


async def test_what_was_approved_is_known_after_a_restart(tmp_path: Path, eventually: Eventually):
    async with gateway(tmp_path / "gw") as site:
        async with headquarters(tmp_path / "hq") as hq, site.linked(hq.port):
            await eventually(lambda: site.code, "the gateway shows a code")
            await hq.approve(site.code)
            await eventually(site.is_settled, "it is known")
        await site.say(3)
        async with headquarters(tmp_path / "hq") as hq, site.linked(hq.port):
            await eventually(site.is_settled, "and again")
            assert hq.rows("SELECT count(*) FROM record") == [(3,)]


async def asked(site: Gateway, hq: Headquarters) -> tuple[OpenClaim, CloudClient]:
    """A request that waits, without an uplink."""
    claim = await asyncio.to_thread(ClaimFiles(site.data).open_or_make, site.ring.key, NAMES)
    client = site.client(hq.port)
    async with client.session() as session:
        assert (await ask(client, session, claim))["state"] == "pending"
    return claim, client


async def standing(claim: OpenClaim, client: CloudClient) -> str:
    async with client.session() as session:
        return (await look(client, session, claim))["state"]


async def test_five_wrong_codes_end_a_request(tmp_path: Path):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        claim, client = await asked(site, hq)
        for left in (4, 3, 2, 1):
            status, answer = await hq.approve("0000-0000")
            assert (status, answer["error"]["reason"]) == (409, "wrong_code")
            assert (await hq.pending())[0]["tries_left"] == left
        assert (await hq.approve("0000-0000"))[1]["error"]["reason"] == "request_ended"
        assert await standing(claim, client) == "dropped"
        assert (await hq.approve(claim.code))[1]["error"]["reason"] == "no_such_request"
        assert await hq.keys() == {}


async def test_many_codes_at_once_are_no_more_tries(tmp_path: Path):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        await asked(site, hq)
        answers = await asyncio.gather(*(hq.approve(f"0000-000{n}") for n in range(9)))
        reasons = [answer["error"]["reason"] for _, answer in answers]
        assert reasons.count("wrong_code") == 4
        assert set(reasons) == {"wrong_code", "request_ended"}


async def test_the_right_code_may_be_the_fifth(tmp_path: Path):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        claim, client = await asked(site, hq)
        for _ in range(4):
            await hq.approve("0000-0000")
        assert (await hq.approve(claim.code))[0] == 200
        assert await standing(claim, client) == "approved"


async def test_an_expired_code_is_good_for_nothing_and_another_one_is_shown(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site, site.linked(hq.port):
        await eventually(lambda: site.code, "the gateway shows a code")
        first = site.code
        with contextlib.closing(sqlite3.connect(hq.data / "cloud.db")) as connection:
            connection.execute("UPDATE enrolment SET ends_ms = 1")
            connection.commit()
        await eventually(lambda: site.code and site.code != first, "it shows another one")
        assert (await hq.approve(first))[1]["error"]["reason"] == "wrong_code"
        assert (await hq.approve(site.code))[0] == 200
        await eventually(site.is_settled, "it is known")


async def test_a_refused_gateway_says_so(tmp_path: Path, eventually: Eventually):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        claim, client = await asked(site, hq)
        assert (await hq.tell("/refuse", gateway="gw1", id=claim.request.id))[0] == 200
        assert await standing(claim, client) == "refused"
        assert (await hq.approve(claim.code))[1]["error"]["reason"] == "no_such_request"
        async with site.linked(hq.port):
            await eventually(lambda: (site.health.enrolment or {}).get("state") == "refused", "the gateway says so")


async def test_a_request_that_is_sent_again_is_the_same_one(tmp_path: Path):
    """Byte for byte, with its signature: whoever recorded it gets nothing by it, before and after its end."""
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        claim, _ = await asked(site, hq)
        uri = f"http://127.0.0.1:{hq.port}{wire.enrolments_path('gw1')}"
        body = json.dumps(claim.request.to_json()).encode()

        async def post(created_s: int, key: Ed25519PrivateKey = site.ring.key) -> tuple[int, Any]:
            digest, chain = wire.content_digest(body), wire.bytes_text(bytes(32))
            message = wire.Message(method="POST", target_uri=uri, digest=digest, chain=chain)
            headers = wire.sign(message, key, created_s=created_s, nonce="0" * 32)
            async with aiohttp.ClientSession() as session, session.post(uri, data=body, headers=headers) as reply:
                return reply.status, await reply.json()

        for _ in range(3):
            assert (await post(int(time.time())))[1]["state"] == "pending"
        assert len(await hq.pending()) == 1
        assert (await post(int(time.time()) - 3600))[1]["error"]["reason"] == "clock"
        assert (await post(int(time.time()), OTHER_KEY))[1]["error"]["reason"] == "wrong_key"
        await hq.tell("/refuse", gateway="gw1", id=claim.request.id)
        assert (await post(int(time.time())))[1]["state"] == "refused"
        assert await hq.pending() == []


async def test_a_code_does_not_approve_another_machine_that_asks_under_the_same_name(tmp_path: Path):
    async with (
        headquarters(tmp_path / "hq") as hq,
        gateway(tmp_path / "gw") as site,
        gateway(tmp_path / "thief") as thief,
    ):
        claim, _ = await asked(site, hq)
        stolen, _ = await asked(thief, hq)
        assert (await hq.approve(claim.code))[1]["error"]["reason"] == "several"
        status, answer = await hq.approve(claim.code, id=stolen.request.id)
        assert (status, answer["error"]["reason"]) == (409, "wrong_code")
        assert (await hq.approve(claim.code, id=claim.request.id))[0] == 200
        assert await hq.keys() == {claim.request.kid: "active"}


async def test_a_forged_answer_is_refused(tmp_path: Path, eventually: Eventually):
    """Whoever stands between can say `approved`; without the code nothing that the gateway believes."""
    thiefs_key = public_key_text(OTHER_KEY)
    requests: list[Request] = []

    async def forge(request: web.Request) -> web.Response:
        if request.method == "POST":
            requests.append(Request.from_json(await request.json()))
        asks = requests[-1]
        answer = make_answer(asks, claim_of("0000-0000", "gw1", asks.key, asks.salt).proof, thiefs_key, 1).to_json()
        return web.json_response({"id": asks.id, "state": "approved", "left_s": 0, "answer": answer})

    async def stranger(_: web.Request) -> web.Response:
        return web.json_response({"error": {"reason": "not_enrolled", "message": "", "hint": ""}}, status=403)

    app = web.Application()
    app.router.add_route("*", "/v1/gateways/gw1/enrolments", forge)
    app.router.add_get("/v1/gateways/gw1/sync", stranger)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with gateway(tmp_path / "gw") as site:
            async with site.linked(runner.addresses[0][1]):
                await eventually(lambda: (site.health.enrolment or {}).get("state") == "forged", "it is seen")
            assert pinned(site.data) == {}
    finally:
        await runner.cleanup()


async def test_a_witness_that_is_not_the_believed_one_is_refused(tmp_path: Path, eventually: Eventually):
    async with gateway(tmp_path / "gw") as site:
        known = GatewayTable(id="gw1", name="一厂", name_en="1", public_key=public_key_text(site.ring.key))
        pin(site.data, public_key_text(OTHER_KEY))
        async with headquarters(tmp_path / "hq", known) as hq, site.linked(hq.port):
            await site.say(3)
            await eventually(lambda: site.checkpoints.health.refused, "the countersignature is refused")
            assert site.checkpoints.health.witnessed == 0


async def test_a_second_machine_takes_the_place_of_the_first_only_when_that_is_said(tmp_path: Path):
    async with gateway(tmp_path / "gw") as site:
        known = GatewayTable(id="gw1", name="一厂", name_en="1", public_key=public_key_text(OTHER_KEY))
        async with headquarters(tmp_path / "hq", known) as hq:
            claim, _ = await asked(site, hq)
            assert (await hq.pending())[0]["replaces"] is True
            assert (await hq.approve(claim.code))[1]["error"]["reason"] == "already_enrolled"
            assert (await hq.pending())[0]["tries_left"] == 5, "no try is lost by it"
            assert (await hq.approve(claim.code, replace=True))[0] == 200
            assert await hq.keys() == {claim.request.kid: "active", key_id(OTHER_KEY): "ended"}
            old = CloudClient(options(hq.port), OTHER_KEY, UplinkHealth())
            async with old.session() as session:
                with pytest.raises(LinkError) as refused:
                    await old.where(session)
            assert refused.value.reason == "key_ended"


async def test_requests_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(enrol_store, "MOST_OF_ADDRESS", 2)
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        for _ in range(2):
            claim, _ = await asked(site, hq)
            await asyncio.to_thread(ClaimFiles(site.data).drop, claim)
        with pytest.raises(LinkError) as refused:
            await asked(site, hq)
        assert refused.value.reason == "busy"
        assert len(await hq.pending()) == 2


def test_an_address_may_not_come_too_often():
    at_s = [0.0]
    rate = Rate(lambda: at_s[0])
    for _ in range(MOST_PER_ADDRESS):
        rate.count("10.0.0.9")
    with pytest.raises(RefusedError):
        rate.count("10.0.0.9")
    rate.count("10.0.0.8")
    at_s[0] = WINDOW_S + 1
    rate.count("10.0.0.9")


# --- pages -------------------------------------------------------------------------------------------------------


async def test_only_it_and_admin_decide_at_the_page(tmp_path: Path):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        claim, _ = await asked(site, hq)
        url = f"http://127.0.0.1:{hq.port}/api/v1"
        wanted = {"gateway": "gw1", "code": claim.code, "id": claim.request.id, "replace": False}
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(f"{url}/enrolment") as reply:
                assert reply.status == 401
            async with session.post(f"{url}/enrolment/approve", json=wanted) as reply:
                assert reply.status == 401
            for person, pending, expected in ((WANG, 0, (403, "not_your_role")), (LIU, 1, (200, ""))):
                async with session.post(f"{url}/session", json={"person": person.id, "pin": PIN}) as reply:
                    token = {"X-CSRF-Token": (await reply.json())["csrf"]}
                async with session.get(f"{url}/enrolment") as reply:
                    assert len((await reply.json())["pending"]) == pending
                async with session.post(f"{url}/enrolment/approve", json=wanted) as reply:
                    assert (await reply.json())["error"]["reason"] == "csrf"
                async with session.post(f"{url}/enrolment/approve", json=wanted, headers=token) as reply:
                    reason = (await reply.json()).get("error", {}).get("reason", "")
                    assert (reply.status, reason) == expected
        (one,) = (await hq.tell(""))[1]["gateways"]
        assert one["keys"][0]["approved_by"] == LIU.name


# --- in a file ---------------------------------------------------------------------------------------------------


async def test_a_site_without_a_link_is_enrolled_by_a_file(tmp_path: Path):
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        files = ClaimFiles(site.data)
        claim = await asyncio.to_thread(files.open_or_make, site.ring.key, NAMES, by_file=True)
        assert len(claim.code) == 14
        status, brought = await hq.tell("/bring", request=claim.request.to_json())
        assert status == 200
        assert (await hq.approve("0000-0000-0000", id=brought["id"]))[1]["error"]["reason"] == "wrong_code"
        status, answer = await hq.approve(claim.code, id=brought["id"])
        assert status == 200
        forged = {**answer["answer"], "proof": wire.bytes_text(bytes(32))}
        with pytest.raises(RefusedError) as refused:
            files.accept(claim, forged)
        assert refused.value.reason == "forged"
        files.accept(claim, answer["answer"])
        assert list(pinned(site.data)) == [key_id(load_or_create_key(hq.data / "witness.key"))]
        assert await hq.keys() == {claim.request.kid: "active"}


# --- revocation --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def enrolled(tmp_path: Path, eventually: Eventually) -> AsyncIterator[tuple[Headquarters, Gateway]]:
    """A gateway that is known, linked, and has brought ten records."""
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site:
        await site.say(10)
        async with site.linked(hq.port):
            await eventually(lambda: site.code, "the gateway shows a code")
            assert (await hq.approve(site.code))[0] == 200
            await eventually(site.is_settled, "it is known")
            yield hq, site


async def test_a_revoked_gateway_says_so_and_loses_nothing(tmp_path: Path, eventually: Eventually):
    async with enrolled(tmp_path, eventually) as (hq, site):
        kid = key_id(site.ring.key)
        assert (await hq.revoke())[1] == {"revoked": [kid]}
        client = site.client(hq.port)
        async with client.session() as session:
            with pytest.raises(LinkError) as refused:  # at once: the answer to the operator came after it
                await client.where(session)
        assert refused.value.reason == "revoked"
        await site.say(5)
        await eventually(lambda: site.health.reasons.get("journal") == "revoked", "the gateway says so")
        assert "revoked" in site.health.last_error
        assert site.health.hints["journal"] == "ask headquarters"
        assert site.health.backlog_records >= 5
        assert site.health.enrolment is None, "it does not ask again by itself"
        assert not {"revoked", "key_ended"} & set(STRANGER)
        assert hq.rows("SELECT count(*) FROM record")[0][0] < site.journal.head()[0]
        (key,) = (await hq.tell(""))[1]["gateways"][0]["keys"]
        assert (key["kid"], key["state"], key["reason"], key["revoked_by"]) == (
            kid,
            "revoked",
            "被盗 x forged",
            "console",
        )
        assert key["key"] == public_key_text(site.ring.key), "old checkpoints can still be verified"


async def test_a_key_of_cloud_toml_can_be_revoked(tmp_path: Path):
    known = GatewayTable(id="gw1", name="一厂", name_en="1", public_key=public_key_text(OTHER_KEY))
    client = None
    for revoked in (False, True):
        async with headquarters(tmp_path / "hq", known) as hq:
            client = CloudClient(options(hq.port), OTHER_KEY, UplinkHealth())
            async with client.session() as session:
                if not revoked:
                    await client.where(session)
                    assert await hq.keys() == {key_id(OTHER_KEY): "active"}
                    await hq.revoke(kid=key_id(OTHER_KEY))
                with pytest.raises(LinkError) as refused:  # also after a restart with the same file
                    await client.where(session)
            assert refused.value.reason == "revoked"
            assert (await hq.revoke())[1]["error"]["reason"] == "no_such_key"


async def test_a_revoked_key_cannot_be_enrolled_again(tmp_path: Path, eventually: Eventually):
    async with enrolled(tmp_path, eventually) as (hq, site):
        await hq.revoke()
        with pytest.raises(LinkError) as refused:
            await asked(site, hq)
        assert refused.value.reason == "revoked"


# --- rotation ----------------------------------------------------------------------------------------------------


async def test_a_key_is_followed_by_another_one_while_everything_goes_on(tmp_path: Path, eventually: Eventually):
    async with enrolled(tmp_path, eventually) as (hq, site):
        old = site.ring.key

        async def talk() -> None:
            while True:
                await site.say(3)
                await asyncio.sleep(0)

        async with running(talk()):
            assert await site.rotating.rotate(30) == (key_id(site.ring.key), True)
            await site.rotating.rotate(30)
            there = site.journal.head()[0]
            await eventually(lambda: site.checkpoints.health.witnessed > there, "checkpoints go on")
        new = site.ring.key
        await eventually(site.is_settled, "everything is sent")
        states = await hq.keys()
        assert sorted(states.values()) == ["active", "ending", "ending"]
        assert (states[key_id(old)], states[key_id(new)]) == ("ending", "active")
        kept = hq.rows("SELECT seq, data, chain FROM record ORDER BY seq")
        assert kept == await site.journal.raw(0, 1_000_000), "the same records, each once"
        assert (site.data / OWN).exists()
        assert not (site.data / NEXT).exists()
        until_s = hq.rows("SELECT valid_until_ms FROM gateway_key WHERE kid = ?", key_id(old))[0][0] / 1000
        assert 6.9 < (until_s - time.time()) / 86_400 < 7.1
        await hq.revoke(kid=key_id(old))
        await site.say()
        await eventually(site.is_settled, "the old key's end is not the new one's")
    with contextlib.closing(sqlite3.connect(file_of(site.data))) as connection:
        ((newest,),) = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchall()
    verify_note(parse_note(newest), origin_of("gw1", site.journal.epoch), [new.public_key()])
    report = examine(file_of(site.data), gateway_keys=[old.public_key()])
    assert report.is_good, report.problems
    assert report.signed > there
    assert examine(file_of(site.data)).is_good, "with the keys of the file, too"
    wrong = examine(file_of(site.data), gateway_keys=[OTHER_KEY.public_key()])
    assert {problem.code for problem in wrong.problems} == {"signature"}


class PowerCutError(BaseException):
    pass


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
async def test_a_rotation_may_end_at_any_step(tmp_path: Path, eventually: Eventually, cut: int):
    """Whatever is on the disk then: the gateway signs in, and ends what it began."""

    def stop(step: int) -> None:
        if step == cut:
            raise PowerCutError

    old = OTHER_KEY
    async with headquarters(tmp_path / "hq") as hq:
        with contextlib.suppress(BaseExceptionGroup, PowerCutError):
            async with gateway(tmp_path / "gw", stop) as site, site.linked(hq.port):
                await eventually(lambda: site.code, "the gateway shows a code")
                await hq.approve(site.code)
                await site.say(3)
                await eventually(site.is_settled, "it is known")
                old = site.ring.key
                await site.rotating.rotate(30)
                raise AssertionError("the power was not cut")
        async with gateway(tmp_path / "gw") as site:
            client = site.client(hq.port)
            async with client.session() as session:
                await client.where(session)  # before anything is done about it
            async with site.linked(hq.port):
                await site.say(3)
                if cut > 1:
                    await eventually(lambda: key_id(site.ring.key) != key_id(old), "the rotation ends")
                await eventually(site.is_settled, "it signs in")
                count = site.journal.head()[0]
                await eventually(lambda: site.checkpoints.health.witnessed >= count, "and its checkpoints are good")
            records = [json.loads(data) for _, data, _ in await site.journal.raw(0, 1000)]
            assert sum(record["kind"] == ROTATED for record in records) == (cut > 1)
            assert not any(record["kind"] == REPLACED for record in records)
        report = examine(file_of(tmp_path / "gw"), gateway_keys=[old.public_key()])
        assert report.is_good, report.problems


async def test_a_rotation_that_was_forgotten_for_weeks_comes_to_its_end(tmp_path: Path, eventually: Eventually):
    """Told to headquarters, then switched off for longer than the old key lasts."""

    def stop(step: int) -> None:
        if step == 3:
            raise PowerCutError

    old = OTHER_KEY
    async with headquarters(tmp_path / "hq") as hq:
        with contextlib.suppress(BaseExceptionGroup, PowerCutError):
            async with gateway(tmp_path / "gw", stop) as site, site.linked(hq.port):
                await eventually(lambda: site.code, "the gateway shows a code")
                await hq.approve(site.code)
                await eventually(site.is_settled, "it is known")
                old = site.ring.key
                await site.rotating.rotate(30)
        with contextlib.closing(sqlite3.connect(hq.data / "cloud.db")) as connection:
            connection.execute("UPDATE gateway_key SET valid_until_ms = 1 WHERE valid_until_ms IS NOT NULL")
            connection.execute("UPDATE gateway_key_revision SET n = n + 1")
            connection.commit()
    async with headquarters(tmp_path / "hq") as hq, gateway(tmp_path / "gw") as site, site.linked(hq.port):
        assert (await hq.keys())[key_id(old)] == "ended"
        await eventually(lambda: key_id(site.ring.key) != key_id(old) and site.is_settled(), "it signs in")


async def test_a_key_that_no_record_introduces_is_refused(tmp_path: Path, eventually: Eventually):
    """Somebody puts another key into the data folder of a stopped gateway."""
    async with gateway(tmp_path / "gw") as site:
        first = site.ring.key
        await site.say(3)
        await eventually(lambda: site.checkpoints.health.signed >= 3, "it is signed")
    (tmp_path / "gw" / OWN).unlink()
    async with Journal(tmp_path / "gw" / "journal.db", "gw1") as journal:
        checkpoints = Checkpoints(journal, OTHER_KEY, EvidenceHealth(), every_s=0.05)
        async with running(checkpoints.run()):
            await journal.append([Draft(kind="test.said", at=now(), actor="gateway", body={})])
            await eventually(lambda: checkpoints.health.signed >= 4, "it is signed by another key")
    for keys in ([first.public_key()], []):
        report = examine(file_of(tmp_path / "gw"), gateway_keys=keys)
        assert [problem.code for problem in report.problems] == ["signature"]


async def test_another_key_that_the_gateway_declares_shows(tmp_path: Path, eventually: Eventually):
    """The key's file was lost: honest, and no proof: who verifies with the first key alone is told."""
    async with gateway(tmp_path / "gw") as site:
        first = site.ring.key
        await site.say(3)
        await eventually(lambda: site.checkpoints.health.signed >= 3, "it is signed")
    (tmp_path / "gw" / OWN).unlink()
    async with gateway(tmp_path / "gw") as site:
        await eventually(lambda: site.checkpoints.health.signed >= 4, "it is signed by another key")
        second = site.ring.key
    report = examine(file_of(tmp_path / "gw"))
    assert report.is_good, report.problems
    assert [gap.kind for gap in report.gaps] == [REPLACED]
    assert not examine(file_of(tmp_path / "gw"), gateway_keys=[first.public_key()]).is_good
    assert examine(file_of(tmp_path / "gw"), gateway_keys=[first.public_key(), second.public_key()]).is_good
