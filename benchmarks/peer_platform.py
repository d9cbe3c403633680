"""Stands where a peer sends to: counts numbered messages at a broker and answers like ThingsBoard.

    peer_platform.py BROKER_PORT

Each line `took` on standard input is answered by `took {json}`: `messages`, `distinct` numbers among them.
"""

from __future__ import annotations

import json
import re
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

NUMBER = re.compile(rb'"n": ?"?(\d+)')
LIMITS = {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""}
SESSION = {"maxPayloadSize": 65536, "maxInflightMessages": 1000, "rateLimits": LIMITS, "gatewayRateLimits": LIMITS}


def main(port: int) -> None:
    """Run until killed."""
    messages, seen = 0, set[int]()

    def on_message(client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        nonlocal messages
        if b"getSessionLimits" in message.payload:
            client.publish(message.topic.replace("request", "response"), json.dumps(SESSION), qos=1)
            return
        for number in NUMBER.findall(message.payload):
            messages += 1
            seen.add(int(number))

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="platform")
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("#", qos=1)
    client.loop_start()
    for _ in sys.stdin:
        print("took", json.dumps({"messages": messages, "distinct": len(seen)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
