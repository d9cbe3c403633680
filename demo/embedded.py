"""The embedded MQTT broker (amqtt) of a quick start without mosquitto. Loopback only; nothing survives a restart.

Run as `python -m sitewarden.demo.embedded CONFIG.json`; `broker.py` writes the configuration.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseTopicPlugin
from amqtt.session import Session


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Whether an MQTT topic filter matches a topic (MQTT 3.1.1 §4.7, without `$` topics)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)


class RightsPlugin(BaseTopicPlugin):
    """Who may publish, and whose messages reach whom; subscribing itself is free, as with mosquitto's acl_file.

    amqtt does not ask it about the retained messages that a new subscription brings.
    """

    @dataclass
    class Config(BaseTopicPlugin.Config):
        """Per user the topic filters to `write` and to `read`."""

        rights: dict[str, dict[str, list[str]]] = field(default_factory=dict[str, dict[str, list[str]]])

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Whether this session may do this with this topic."""
        if action is Action.SUBSCRIBE:
            return True
        user: str = (session.username if session else None) or ""
        rights: dict[str, list[str]] = self._get_config_option("rights", {}).get(user, {})
        allowed = rights.get("write" if action is Action.PUBLISH else "read", [])
        return any(topic_matches(item, topic or "") for item in allowed)


def broker_config(settings: dict[str, Any]) -> dict[str, Any]:
    """amqtt's configuration from the file that `broker.py` wrote."""
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{settings['port']}"}},
        "plugins": {
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": settings["password_file"]},
            f"{RightsPlugin.__module__}.{RightsPlugin.__name__}": {"rights": settings["rights"]},
        },
    }


async def run_embedded(config: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    broker = Broker(broker_config(json.loads(config.read_text("utf-8"))))
    await broker.start()
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # `__main__` is another module object than the one that the plugin path names: import that one.
    from sitewarden.demo.embedded import run_embedded as _run

    asyncio.run(_run(Path(sys.argv[1])))
