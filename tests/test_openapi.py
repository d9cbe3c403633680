"""The contract of the cloud's HTTP interface is what the running service does: every route, every answer."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import requests.auth
import schemathesis
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from sitewarden.cloud import orders
from sitewarden.cloud.app import COOKIE, run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.contract import CONTRACT
from sitewarden.serving.people import Person
from sitewarden.serving.secrets import Secrets
from sitewarden.serving.web import make_app
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.wire import Message, bytes_text, content_digest, sign
from sitewarden.words import now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LI = Person(id="p_li", name="李敏", name_en="Li Min", roles=("officer",), areas=("*",))
PIN = "135790"
GATEWAY = "gw1"
ROOT = Path(__file__).parents[1]
DOCUMENT: dict[str, Any] = yaml.safe_load(CONTRACT.read_text())
VERBS = ("get", "head", "put", "post", "patch", "delete")
LONG = int(float(os.environ.get("SITEWARDEN_SOAK_S", "600")))
NEVER_ENDS = "/api/v1/live"
BINARY = (
    "application/vnd.sitewarden.batch+zstd",
    "application/vnd.sitewarden.batches+msgpack",
    "application/offset+octet-stream",
    "application/octet-stream",
)
HERE = copy.deepcopy(DOCUMENT)
HERE["components"]["parameters"]["Gateway"]["schema"] = {"enum": [GATEWAY, "gw_unknown"]}
schema: Any = schemathesis.openapi.from_dict(HERE)
schema.config.checks.negative_data_rejection.expected_statuses = [
    "400",
    "401",
    "403",
    "404",
    "405",
    "409",
    "413",
    "415",
]


@schemathesis.serializer(*BINARY)
def as_bytes(_: Any, value: Any) -> bytes:
    """A body of any bytes; what is no bytes is sent as its text."""
    return value if isinstance(value, bytes) else str(value).encode()


# --- the service -------------------------------------------------------------------------------------------------


@dataclass
class Service:
    """A cloud on a real socket, in a thread of its own: the clients here wait."""

    url: str
    app: web.Application
    csrf: str = ""
    cookies: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data = tmp_path_factory.mktemp("cloud")
    config = CloudConfig(
        cloud=CloudTable(name="总部", name_en="HQ", port=0, baseline=str(ROOT / "config" / "baseline.toml")),
        gateway=(GatewayTable(id=GATEWAY, name="一厂", name_en="Plant 1", public_key=public_key_text(KEY)),),
        people={LI.id: LI},
    )
    with contextlib.closing(Secrets(data / "secrets.db")) as secrets:
        secrets.set_pin(LI.id, PIN)
    loop, up, apps = asyncio.new_event_loop(), threading.Event(), list[web.Application]()
    ports: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "LONGEST_WAIT_S", 0.02)
        patch.setattr("sitewarden.cloud.app.make_app", lambda *a, **k: apps.append(make_app(*a, **k)) or apps[-1])

        def ready(port: int) -> None:
            ports.append(port)
            up.set()

        task = loop.create_task(run_cloud(config, data, ready=ready))

        def serve() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            up.set()

        thread = threading.Thread(target=serve, name="cloud")
        thread.start()
        assert up.wait(60)
        try:
            found = Service(f"http://127.0.0.1:{ports[0]}", apps[0])
            answer = requests.post(f"{found.url}/api/v1/session", json={"person": LI.id, "pin": PIN}, timeout=60)
            found.csrf, found.cookies = answer.json()["csrf"], {COOKIE: str(answer.cookies[COOKIE])}
            yield found
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join(60)
            loop.close()


class Signed(requests.auth.AuthBase):
    """Signs what is about to be sent as the gateway does."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body: Any = request.body or b""
        data = body.encode() if isinstance(body, str) else body
        fields = {name.lower(): _text(value) for name, value in request.headers.items()}
        chain, upload = "", None
        if request.method == "PATCH":
            upload = (fields["upload-offset"], fields["upload-length"])
        elif request.method in ("PUT", "POST"):
            chain = bytes_text(os.urandom(32))
        has_body = request.method in ("PUT", "POST", "PATCH")
        message = Message(
            method=str(request.method),
            target_uri=str(request.url),
            digest=content_digest(data) if has_body else "",
            chain=chain,
            upload=upload,
        )
        for name, value in sign(message, KEY, created_s=now().utc_ms // 1000, nonce=os.urandom(16).hex()).items():
            request.headers[name] = value
        return request


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


# --- the document ------------------------------------------------------------------------------------------------


def documented() -> set[tuple[str, str]]:
    return {(verb, path) for path, item in DOCUMENT["paths"].items() for verb in VERBS if verb in item}


def test_routes_and_contract_agree(service: Service) -> None:
    """Every route of the running service is described, and nothing else is. HEAD is described where it is more."""
    served: set[tuple[str, str]] = set()
    for route in service.app.router.routes():
        path = re.sub(r"\{(\w+)(:[^}]*\})?[^{}/-]*\}", r"{\1}", route.resource.canonical if route.resource else "")
        path = path.replace("{n}-{last}", "{first}-{last}")
        if path != "/" and not path.startswith("/assets"):
            served.add((route.method.lower(), path))
    described = documented()
    heads = {(verb, path) for verb, path in served if verb == "head"}
    assert described <= served
    assert served - heads <= described


def test_the_document_is_served_as_it_is(service: Service) -> None:
    answer = requests.get(f"{service.url}/openapi.yaml", timeout=60)
    assert answer.headers["Content-Type"].startswith("application/yaml")
    assert answer.content == CONTRACT.read_bytes()


def test_operations_have_a_name_and_say_who_may(service: Service) -> None:
    names: list[str] = []
    for verb, path in sorted(documented()):
        operation = DOCUMENT["paths"][path][verb]
        assert operation["summary"].endswith(".")
        assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
        wanted = (
            {"signature"}
            if path.startswith("/v1/")
            else {"session"}
            if "/sites" in path or "/bundles" in path
            else set()
        )
        assert wanted <= {name for way in operation["security"] for name in way}
        names.append(operation["operationId"])
    assert len(set(names)) == len(names)


def test_the_schema_is_valid_openapi() -> None:
    schema.validate()


# --- what the service answers ------------------------------------------------------------------------------------


def examples(most: int, **more: Any) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=most, deadline=None, suppress_health_check=slow, **more)


@schema.exclude(path=NEVER_ENDS).parametrize()
@examples(10, derandomize=True)
def test_every_answer_is_as_described(case: Any, service: Service) -> None:
    """Right and wrong requests, signed and with a session: the status, the type, the fields and the body fit."""
    judge(case, service)


@pytest.mark.soak
@schema.exclude(path=NEVER_ENDS).parametrize()
@examples(LONG)
def test_every_answer_is_as_described_long(case: Any, service: Service) -> None:
    judge(case, service)


def judge(case: Any, service: Service) -> None:
    gateways = case.path.startswith("/v1/")
    auth = Signed() if gateways and not _is_about(case, ParameterLocation.HEADER) else None
    signs_out = case.path == "/api/v1/session" and case.method == "DELETE"  # the others still need the session
    cookies = {} if gateways or signs_out or _is_about(case, ParameterLocation.COOKIE) else service.cookies
    token = {"X-CSRF-Token": service.csrf} if "/bundles" in case.path else {}
    response = case.call(base_url=service.url, auth=auth, cookies=cookies, headers=token, timeout=60)
    case.validate_response(response, excluded_checks=[ignored_auth, positive_data_acceptance])


def _is_about(case: Any, location: ParameterLocation) -> bool:
    """Whether it is this part of the request that is wrong on purpose."""
    if not case.meta.generation.mode.is_negative:
        return False
    return getattr(case.meta.phase.data, "parameter_location", None) in (location, None)


@schema.include(path_regex="^/v1/").parametrize()
@examples(3, derandomize=True)
def test_nobody_gets_in_unsigned(case: Any, service: Service) -> None:
    case.path_parameters["gateway"] = GATEWAY
    response = case.call(base_url=service.url, timeout=60)
    assert response.status_code in (400, 401, 405), response.text
    case.validate_response(response, checks=[not_a_server_error])


@pytest.mark.parametrize("path", [path for verb, path in sorted(documented()) if verb == "get" and "/sites" in path])
def test_nobody_gets_in_without_a_session(path: str, service: Service) -> None:
    url = service.url + path.format(gateway=GATEWAY, sha256="0" * 64, id=1)
    answer = requests.get(url, timeout=60)
    assert answer.status_code == 401
    assert answer.json()["error"]["reason"] == "signed_out"


def test_changes_are_streamed(service: Service) -> None:
    with requests.get(service.url + NEVER_ENDS, cookies=service.cookies, stream=True, timeout=60) as answer:
        assert urlsplit(answer.url).path == NEVER_ENDS
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert any(line == b"event: changed" for line in answer.iter_lines())
