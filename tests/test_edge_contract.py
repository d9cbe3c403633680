"""The contract of the gateway's HTTP interface is what the running daemon does: every route, every answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from aiohttp import web
from hypothesis import HealthCheck, settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)
from sitewarden.edge.app import run_edge
from sitewarden.edge.pages.contract import CONTRACT
from sitewarden.serving.secrets import Secrets
from sitewarden.serving.web import make_app
from sitewarden.tests.peers.ports import free_port

PIN = "246813"
COOKIE = "sitewarden_edge"
DOCUMENT: dict[str, Any] = yaml.safe_load(CONTRACT.read_text("utf-8"))
VERBS = ("get", "head", "put", "post", "patch", "delete")
LONG = int(float(os.environ.get("SITEWARDEN_SOAK_S", "600")))
NEVER_ENDS = "/api/v1/live"
ROOT = Path(__file__).parents[1]
PEOPLE = "id,name,name_en,roles,areas,phone\nwang,王,Wang,officer admin,*,\n"
SITE = """
[site]
id = "s1"
name = "印染"
name_en = "Dyeing"
[gateway]
id = "gw1"
[web]
port = {port}
[alerts]
required_acks = ["officer"]
unreachable_ok = true
[[area]]
id = "store"
name = "助剂库"
name_en = "Store"
[[bus]]
id = "plant"
kind = "tcp"
host = "127.0.0.1"
port = {nobody}
[[device]]
id = "th1"
bus = "plant"
area = "store"
unit_id = 1
profile = "rs_ws_n01"
"""
schema: Any = schemathesis.openapi.from_dict(DOCUMENT)


@schemathesis.serializer("application/octet-stream")
def as_bytes(_: Any, value: Any) -> bytes:
    """A body of any bytes; what is no bytes is sent as its text."""
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass
class Gateway:
    """The daemon on a real socket, in a thread of its own: the clients here wait."""

    url: str
    app: web.Application
    csrf: str = ""
    cookies: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("edge")
    data, config, port = folder / "data", folder / "site.toml", free_port()
    data.mkdir()
    (folder / "people.csv").write_text(PEOPLE, "utf-8")
    config.write_text(SITE.format(port=port, nobody=free_port()), "utf-8")
    with contextlib.closing(Secrets(data / "secrets.db")) as secrets:
        secrets.set_pin("wang", PIN)
    loop, up, apps = asyncio.new_event_loop(), threading.Event(), list[web.Application]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "add_signal_handler", lambda *_: None)  # these belong to the main thread
        patch.setattr(loop, "remove_signal_handler", lambda *_: None)
        patch.setattr("sitewarden.edge.front.make_app", lambda *a, **k: apps.append(make_app(*a, **k)) or apps[-1])
        task = loop.create_task(run_edge(config, data, say=lambda _: up.set()))
        failures: list[BaseException] = []

        def serve() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                failures.append(error)
            up.set()

        thread = threading.Thread(target=serve, name="edge")
        thread.start()
        assert up.wait(90)
        assert not failures, failures
        try:
            found = Gateway(f"http://127.0.0.1:{port}", apps[0])
            answer = requests.post(f"{found.url}/api/v1/session", json={"person": "wang", "pin": PIN}, timeout=60)
            found.csrf, found.cookies = answer.json()["csrf"], {COOKIE: str(answer.cookies[COOKIE])}
            yield found
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join(60)
            loop.close()


def documented() -> set[tuple[str, str]]:
    return {(verb, path) for path, item in DOCUMENT["paths"].items() for verb in VERBS if verb in item}


def test_routes_and_contract_agree(gateway: Gateway) -> None:
    """Every route of the running daemon is described, and nothing else is. HEAD is described where it is more."""
    served: set[tuple[str, str]] = set()
    for route in gateway.app.router.routes():
        path = re.sub(r"\{(\w+)(:[^}]*\})?[^{}/-]*\}", r"{\1}", route.resource.canonical if route.resource else "")
        if path != "/" and not path.startswith("/assets"):
            served.add((route.method.lower(), path))
    heads = {(verb, path) for verb, path in served if verb == "head"}
    assert documented() <= served
    assert served - heads <= documented()


def test_the_document_is_served_as_it_is(gateway: Gateway) -> None:
    answer = requests.get(f"{gateway.url}/openapi.yaml", timeout=60)
    assert answer.headers["Content-Type"].startswith("application/yaml")
    assert answer.content == CONTRACT.read_bytes()


def test_operations_have_a_name_and_say_who_may() -> None:
    names: list[str] = []
    public = {"readContract", "readMetrics", "listPeople", "signIn"}
    for verb, path in sorted(documented()):
        operation = DOCUMENT["paths"][path][verb]
        assert operation["summary"].endswith(".")
        assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
        wanted = set() if operation["operationId"] in public else {"session"}
        wanted |= {"csrf"} if wanted and verb not in ("get", "head") else set()
        assert {name for way in operation["security"] for name in way} == wanted
        names.append(operation["operationId"])
    assert len(set(names)) == len(names)


def test_the_schema_is_valid_openapi() -> None:
    schema.validate()


def test_every_schema_is_used() -> None:
    text = CONTRACT.read_text("utf-8")
    unused = [name for name in DOCUMENT["components"]["schemas"] if f"#/components/schemas/{name}'" not in text]
    assert unused == []


def examples(most: int, **more: Any) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=most, deadline=None, suppress_health_check=slow, **more)


@schema.exclude(path=NEVER_ENDS).parametrize()
@examples(8, derandomize=True)
def test_every_answer_is_as_described(case: Any, gateway: Gateway) -> None:
    """Right and wrong requests: the status, the type and the body fit."""
    judge(case, gateway)


@pytest.mark.soak
@schema.exclude(path=NEVER_ENDS).parametrize()
@examples(LONG)
def test_every_answer_is_as_described_long(case: Any, gateway: Gateway) -> None:
    judge(case, gateway)


def judge(case: Any, gateway: Gateway) -> None:
    """What a field holds is the daemon's to refuse, beyond what the document says; `plans/pictures` also looks like a
    plan, so that a refused method names those of both. These checks are left out."""
    signs_out = case.path == "/api/v1/session" and case.method == "DELETE"  # the others still need the session
    cookies = {} if signs_out or _is_about(case, ParameterLocation.COOKIE) else gateway.cookies
    headers = {} if _is_about(case, ParameterLocation.HEADER) else {"X-CSRF-Token": gateway.csrf}
    response = case.call(base_url=gateway.url, cookies=cookies, headers=headers, timeout=60)
    case.validate_response(response, excluded_checks=_LEFT_OUT)


_LEFT_OUT = [ignored_auth, positive_data_acceptance, negative_data_rejection, allow_header_conformance]


def _is_about(case: Any, location: ParameterLocation) -> bool:
    """Whether it is this part of the request that is wrong on purpose."""
    if not case.meta.generation.mode.is_negative:
        return False
    return getattr(case.meta.phase.data, "parameter_location", None) in (location, None)


@pytest.mark.parametrize(
    ("verb", "path"),
    [(v, p) for v, p in sorted(documented()) if DOCUMENT["paths"][p][v]["security"]],
)
def test_nobody_gets_in_without_a_session(verb: str, path: str, gateway: Gateway) -> None:
    answer = requests.request(verb, gateway.url + re.sub(r"\{\w+\}", "0" * 64, path), timeout=60)
    assert answer.status_code == 401
    assert verb == "head" or answer.json()["error"]["reason"] == "signed_out"


@pytest.mark.parametrize(
    ("verb", "path"),
    [(v, p) for v, p in sorted(documented()) if any("csrf" in way for way in DOCUMENT["paths"][p][v]["security"])],
)
def test_nothing_is_changed_without_the_token(verb: str, path: str, gateway: Gateway) -> None:
    url = gateway.url + re.sub(r"\{\w+\}", "0" * 64, path)
    answer = requests.request(verb, url, cookies=gateway.cookies, timeout=60)
    assert answer.status_code == 403
    assert answer.json()["error"]["reason"]
