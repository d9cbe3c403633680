"""A real Home Assistant with its MQTT integration, run by the Python of its own environment (`make home-assistant`).

    home_assistant.py FOLDER PORT

says `{"states": {entity: {"state", "attributes"}}, "problems": [...]}`, a line of JSON, whenever a state has changed,
until its input ends. `problems`: what it logged as a warning or worse about MQTT.
"""

# Not part of the package: it knows Home Assistant's modules, and nothing of ours.
from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from homeassistant import bootstrap, config_entries, core, loader  # type: ignore[import-not-found]

ENTRY = {
    "entry_id": "broker",
    "version": 1,
    "minor_version": 1,
    "domain": "mqtt",
    "title": "broker",
    "options": {},
    "pref_disable_new_entities": False,
    "pref_disable_polling": False,
    "source": "user",
    "unique_id": None,
    "disabled_by": None,
}


class Problems(logging.Handler):
    """Keeps what is said about MQTT."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "mqtt" in record.name:
            self.found.append(record.getMessage())


def prepare(folder: Path, port: int) -> None:
    """Its configuration: one broker, and no page of its own."""
    (folder / ".storage").mkdir(parents=True)
    (folder / "configuration.yaml").write_text("homeassistant:\n", "utf-8")
    entry = {**ENTRY, "data": {"broker": "127.0.0.1", "port": port, "username": "gw", "password": "secret"}}
    whole = {"version": 1, "minor_version": 1, "key": "core.config_entries", "data": {"entries": [entry]}}
    (folder / ".storage" / "core.config_entries").write_text(json.dumps(whole), "utf-8")


async def main(folder: Path, port: int) -> None:
    """Run until standard input ends."""
    problems = Problems()
    logging.getLogger().addHandler(problems)
    prepare(folder, port)
    hass = core.HomeAssistant(str(folder))
    hass.config.config_dir = str(folder)
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_from_config_dict({"homeassistant": {}}, hass)
    changed = asyncio.Event()

    @core.callback
    def note(_: Any) -> None:
        changed.set()

    hass.bus.async_listen("state_changed", note)
    await hass.async_start()
    changed.set()
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not ended.done():
        waiting = asyncio.ensure_future(changed.wait())
        await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        changed.clear()
        states = {
            one.entity_id: {"state": one.state, "attributes": dict(one.attributes)} for one in hass.states.async_all()
        }
        print(json.dumps({"states": states, "problems": problems.found}, default=str, ensure_ascii=False), flush=True)
    await hass.async_stop(force=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
