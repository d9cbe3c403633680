"""What the services log: JSON for machines, text for people, and never a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sitewarden.serving.logs import REQUEST, TextFormatter, log_as, make_json_formatter, scrub
from sitewarden.tests.peers.linked_site import cloud
from sitewarden.tests.peers.whole_gateway import DEVICE, PIN, Gateway, Sensors

TOKEN = "a-token-of-the-scraper"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a logger of its own writes, as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(make_json_formatter())
    logger = logging.getLogger("sitewarden.test")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield written
    logger.removeHandler(handler)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_one_object_with_the_fields_of_its_call(stream: io.StringIO) -> None:
    log = logging.getLogger("sitewarden.test")
    log.warning("bus %s: %s", "line", "没有应答\nzweite Zeile", extra={"bus": "line", "device": "store.th1"})
    (line,) = lines(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "WARNING",
        "logger": "sitewarden.test",
        "message": "bus line: 没有应答\nzweite Zeile",
        "bus": "line",
        "device": "store.th1",
    }
    assert "没有应答" in stream.getvalue(), "readable without tools"


def test_a_trace_and_the_request_go_with_it(stream: io.StringIO) -> None:
    token = REQUEST.set("abc12345")
    try:
        raise ValueError("http://plant:s3cret@proxy:3128 said no")
    except ValueError:
        logging.getLogger("sitewarden.test").exception("failed")
    finally:
        REQUEST.reset(token)
    (line,) = lines(stream.getvalue())
    assert line["request"] == "abc12345"
    assert "ValueError: http://...@proxy:3128 said no" in line["exc_info"]
    assert "s3cret" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mqtt://u:p@broker:1883 refused", "mqtt://...@broker:1883 refused"),
        ("Authorization: Bearer abc.def, more", "Authorization: Bearer ... more"),
        ("write to li@example.com about http://hq/", "write to li@example.com about http://hq/"),
    ],
)
def test_logins_and_tokens_are_cut_out(text: str, said: str) -> None:
    assert scrub(text) == said
    record = logging.LogRecord("a", logging.INFO, "f", 1, "%s", (text,), None)
    assert TextFormatter().format(record).endswith(said)


def test_whoever_runs_us_in_a_process_of_his_own_says_where_logs_go() -> None:
    before = list(logging.getLogger().handlers)
    assert before, "pytest's own"
    log_as("json")
    assert logging.getLogger().handlers == before


async def test_an_answer_has_the_id_of_its_request(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{port}/api/v1/people"
        async with http.get(url) as first, http.get(url) as second:
            ids = [answer.headers["X-Request-ID"] for answer in (first, second)]
        assert len(set(ids)) == 2
        async with http.get(url, headers={"X-Request-ID": "from-nginx-0001"}) as answer:
            assert answer.headers["X-Request-ID"] == "from-nginx-0001"
        async with http.get(url, headers={"X-Request-ID": 'x" } {'}) as answer:
            assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("form", ["json", "text"])
async def test_the_daemon_logs_in_this_form_and_tells_no_secret(tmp_path: Path, free_port: Any, form: str) -> None:
    sensors = Sensors()
    async with sensors.serving():
        extra = DEVICE.format(unit=1, poll_s=1) + f'\n[cloud]\nurl = "http://127.0.0.1:{free_port()}"\n'
        made = Gateway(tmp_path, free_port(), sensors, extra)
        made.prepare()
        (tmp_path / "scraper").write_text(TOKEN)
        text = made.config.read_text("utf-8")
        made.config.write_text(text.replace("[web]", '[web]\nmetrics_token_file = "scraper"'), "utf-8")
        command = [sys.executable, "-m", "sitewarden", "--verbose", "edge", "--config", str(made.config)]
        command += ["--data", str(made.data), "--log-format", form]
        environment = os.environ | {"PYTHONASYNCIODEBUG": "0"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, encoding="utf-8"
        )
        try:
            assert process.stdout is not None
            said = await asyncio.to_thread(process.stdout.readline)
            assert "http://" in said, process.stderr.read() if process.stderr else ""
            secrets = await use(made)
        finally:
            process.send_signal(signal.SIGTERM)
            _, log = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    key = (made.data / "gateway.key").read_text("ascii", errors="replace")
    private = [line for line in key.splitlines() if line and not line.startswith("-")]
    for secret in (*secrets, *private, PIN, "999111", TOKEN):
        assert secret not in log
    assert "signed in" in log
    if form == "json":
        found = lines(log)
        assert all({"ts", "level", "logger", "message"} <= line.keys() for line in found)
        signed_in = next(line for line in found if "signed in" in line["message"])
        assert re.fullmatch(r"[0-9a-f]{16}", signed_in["request"])
        refused = next(line for line in found if line.get("reason") == "refused")
        assert refused["stream"] in ("journal", "history", "blobs")


async def use(gateway: Gateway) -> list[str]:
    """Sign in, wrongly and rightly, and read the metrics with a token. Returns what must not be in a log."""
    async with gateway.page("zhao") as page:
        tokens = [cookie.value for cookie in page.http.cookie_jar]
        base = f"http://127.0.0.1:{gateway.web}"
        async with page.http.post(f"{base}/api/v1/session", json={"person": "li", "pin": "999111"}) as answer:
            assert answer.status == 401
        async with page.http.get(f"{base}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200
        deadline = time.monotonic() + 20
        while (await page.get("status"))["link"]["reason"] != "refused":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        return [*tokens, page.csrf]
