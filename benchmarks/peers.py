"""Other gateways on the same work: how each is installed and configured. Each is optional."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sites import modbus_site

REGISTERS = 10
MQTT_DEVICES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a configured peer is started."""

    command: tuple[str, ...]
    env: dict[str, str]


class Sitewarden:
    """The whole edge, for the same table."""

    name = "sitewarden edge"
    hint = ""

    def __init__(self, _cache: Path) -> None:
        pass

    def installed(self) -> bool:
        return True

    def install(self) -> None:
        """Nothing to do."""

    def modbus(self, folder: Path, ports: Sequence[int], units: int, period_s: float, _upstream: int) -> Start:
        site = modbus_site(folder, ports, units, REGISTERS, period_s)
        command = (sys.executable, "-m", "sitewarden", "edge", "--config", str(site), "--data", str(folder / "data"))
        return Start(command=command, env={})


class ThingsBoard:
    """ThingsBoard IoT Gateway with its SQLite storage: the peer that does most of the same."""

    name = "ThingsBoard gateway 3.8"
    hint = "pip install 'thingsboard-gateway==3.8.*' in a venv of the cache folder"

    def __init__(self, cache: Path) -> None:
        self.venv = cache / "tb"

    def installed(self) -> bool:
        return (self.venv / "bin" / "thingsboard-gateway").exists()

    def install(self) -> None:
        subprocess.run((sys.executable, "-m", "venv", str(self.venv)), check=True)
        subprocess.run((str(self.venv / "bin" / "pip"), "install", "-q", "thingsboard-gateway==3.8.*"), check=True)

    def modbus(self, folder: Path, ports: Sequence[int], units: int, period_s: float, upstream: int) -> Start:
        slaves = [_tb_slave(port, unit, period_s) for port in ports for unit in range(1, units + 1)]
        return self._start(folder, upstream, "modbus", {"master": {"slaves": slaves}})

    def mqtt(self, folder: Path, source: int, upstream: int) -> Start:
        values = [{"type": "double", "key": key, "value": f"${{{key}}}"} for key in ("n", "a", "b", "c", "d", "e")]
        device = {"deviceNameExpressionSource": "topic", "deviceNameExpression": "(?<=/)[^/]+$"}
        device |= {"deviceProfileExpressionSource": "constant", "deviceProfileExpression": "default"}
        converter = {"type": "json", "deviceInfo": device, "timeout": 60000, "attributes": [], "timeseries": values}
        broker = {"name": "source", "host": "127.0.0.1", "port": source, "clientId": "tb", "version": 5}
        broker |= {"maxMessageNumberPerWorker": 10, "maxNumberOfWorkers": 100, "security": {"type": "anonymous"}}
        mapping = [{"topicFilter": "devices/+", "subscriptionQos": 1, "converter": converter}]
        return self._start(folder, upstream, "mqtt", {"broker": broker, "mapping": mapping, "requestsMapping": {}})

    def _start(self, folder: Path, upstream: int, kind: str, connector: dict[str, Any]) -> Start:
        config = folder / "config"
        (config / "data").mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        platform = {
            "host": "127.0.0.1",
            "port": upstream,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False},
            "security": {"type": "accessToken", "accessToken": "bench"},
            "qos": 1,
            "reportStrategy": {"type": "ON_RECEIVED"},
            "minPackSendDelayMS": 50,
            "maxPayloadSizeBytes": 65536,
        }
        storage = {"type": "sqlite", "data_file_path": str(config / "data" / "data.db"), "max_read_records_count": 1000}
        connectors = [{"type": kind, "name": kind, "configuration": f"{kind}.json"}]
        both = {"thingsboard": platform, "storage": storage, "grpc": {"enabled": False}, "connectors": connectors}
        (config / "tb_gateway.json").write_text(json.dumps(both))
        (config / f"{kind}.json").write_text(json.dumps({"name": kind, "logLevel": "ERROR", **connector}))
        shutil.copy(_only(self.venv, "thingsboard_gateway/config/logs.json"), config / "logs.json")
        program = str(self.venv / "bin" / "thingsboard-gateway")
        env = {"TB_GW_CONFIG_DIR": str(config)}
        return Start(command=("/bin/sh", "-c", f"cd {folder} && exec {program}"), env=env)


def _tb_slave(port: int, unit: int, period_s: float) -> dict[str, Any]:
    tag = {"type": "16uint", "functionCode": 3, "objectsCount": 1}
    return {
        "host": "127.0.0.1",
        "port": port,
        "type": "tcp",
        "method": "socket",
        "unitId": unit,
        "deviceName": f"d{port}_{unit}",
        "deviceType": "default",
        "timeout": 1,
        "retries": 0,
        "byteOrder": "BIG",
        "wordOrder": "BIG",
        "pollPeriod": round(1000 * period_s),
        "connectAttemptTimeMs": 1000,
        "connectAttemptCount": 5,
        "waitAfterFailedAttemptsMs": 1000,
        "attributes": [],
        "timeseries": [{"tag": f"r{r}", "address": r, **tag} for r in range(REGISTERS)],
        "attributeUpdates": [],
        "rpc": [],
    }


def _only(venv: Path, name: str) -> Path:
    return next(venv.glob(f"lib/python3*/site-packages/{name}"))


class NodeRed:
    """Node-RED with node-red-contrib-modbus: reads in one request a device; nothing is kept.

    `reconnectOnTimeout` is off: with its default a silent unit costs the others of its connection 6 polls in 10.
    """

    name = "Node-RED 4.1 + modbus 5.23"
    hint = "npm install node-red@4.1 node-red-contrib-modbus@5.23.3 in the cache folder"

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "nr"

    def installed(self) -> bool:
        return shutil.which("node") is not None and (self.folder / "node_modules" / "node-red-contrib-modbus").exists()

    def install(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = ("node-red@4.1", "node-red-contrib-modbus@5.23.3")
        subprocess.run(("npm", "install", "--no-audit", "--no-fund", "--prefix", str(self.folder), *wanted), check=True)

    def modbus(self, folder: Path, ports: Sequence[int], units: int, period_s: float, upstream: int) -> Start:
        flow = [_nr_broker("up", upstream)]
        for port in ports:
            flow.append(_nr_client(port))
            for unit in range(1, units + 1):
                flow += _nr_reader(port, unit, period_s)
        return self._start(folder, flow)

    def mqtt(self, folder: Path, source: int, upstream: int) -> Start:
        taken = {"id": "in", "type": "mqtt in", "z": "t", "topic": "devices/#", "qos": "1", "datatype": "json"}
        taken |= {"broker": "src", "nl": False, "rap": True, "rh": 0, "inputs": 0, "wires": [["out"]]}
        flow = [_nr_broker("src", source), _nr_broker("up", upstream), taken, _nr_out("out", "")]
        return self._start(folder, flow)

    def _start(self, folder: Path, flow: list[dict[str, Any]]) -> Start:
        from meter import free_port

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "flows.json").write_text(json.dumps([{"id": "t", "type": "tab", "label": "t"}, *flow]))
        nodes = json.dumps(str(self.folder / "node_modules"))
        (folder / "settings.js").write_text(
            f'module.exports={{flowFile:"flows.json",uiPort:{free_port()},uiHost:"127.0.0.1",httpAdminRoot:false,'
            f'nodesDir:{nodes},logging:{{console:{{level:"error"}}}}}};'
        )
        red = self.folder / "node_modules" / "node-red" / "red.js"
        command = (shutil.which("node") or "node", str(red), "-u", str(folder), "-s", str(folder / "settings.js"))
        return Start(command=command, env={})


def _nr_broker(node: str, port: int) -> dict[str, Any]:
    more = {"clientid": f"nr{node}", "autoConnect": True, "usetls": False, "protocolVersion": "4", "cleansession": True}
    return {"id": node, "type": "mqtt-broker", "broker": "127.0.0.1", "port": str(port), "keepalive": "60", **more}


def _nr_out(node: str, topic: str) -> dict[str, Any]:
    return {"id": node, "type": "mqtt out", "z": "t", "topic": topic, "qos": "1", "broker": "up", "wires": []}


def _nr_client(port: int) -> dict[str, Any]:
    client = {"id": f"c{port}", "type": "modbus-client", "clienttype": "tcp", "bufferCommands": True}
    client |= {"tcpHost": "127.0.0.1", "tcpPort": str(port), "tcpType": "DEFAULT", "unit_id": 1, "commandDelay": 1}
    return client | {
        "clientTimeout": 1000,
        "reconnectOnTimeout": False,
        "reconnectTimeout": 2000,
        "parallelUnitIdsAllowed": True,
    }


def _nr_reader(port: int, unit: int, period_s: float) -> list[dict[str, Any]]:
    node = f"{port}_{unit}"
    read = {"id": f"r{node}", "type": "modbus-read", "z": "t", "unitid": str(unit), "dataType": "HoldingRegister"}
    read |= {"adr": "0", "quantity": str(REGISTERS), "rate": str(round(1000 * period_s)), "rateUnit": "ms"}
    read |= {"server": f"c{port}", "wires": [[f"f{node}"], []]}
    change = "msg.payload=JSON.stringify(msg.payload.map(v=>v/10));return {payload:msg.payload};"
    scale = {"id": f"f{node}", "type": "function", "z": "t", "func": change, "outputs": 1, "wires": [[f"o{node}"]]}
    return [read, scale, _nr_out(f"o{node}", f"readings/d{node}")]


class Collectd:
    """collectd's modbus plugin (C): register by register, nothing is kept or checked."""

    name = "collectd 5.12 (native)"
    hint = "sudo apt-get install collectd-core libmodbus5"

    def __init__(self, _cache: Path) -> None:
        self.program = shutil.which("collectd", path="/usr/sbin:/usr/bin")

    def installed(self) -> bool:
        return self.program is not None and Path("/usr/lib/collectd/modbus.so").exists()

    def install(self) -> None:
        subprocess.run(
            ("apt-get", "install", "-y", "--no-install-recommends", "collectd-core", "libmodbus5"), check=True
        )

    def modbus(self, folder: Path, ports: Sequence[int], units: int, period_s: float, _upstream: int) -> Start:
        folder.mkdir(parents=True, exist_ok=True)
        text = f'BaseDir "{folder}"\nPIDFile "{folder}/pid"\n'
        text += 'PluginDir "/usr/lib/collectd"\nTypesDB "/usr/share/collectd/types.db"\n'
        # Without an output collectd would log a warning for every value: they are dropped before that.
        text += 'PreCacheChain "drop"\n<Chain "drop">\nTarget "stop"\n</Chain>\n'
        text += f"Interval {period_s}\nReadThreads 5\nLoadPlugin modbus\n<Plugin modbus>\n"
        for r in range(REGISTERS):
            text += f'<Data "r{r}">\nRegisterBase {r}\nRegisterType Uint16\nType gauge\nInstance "r{r}"\n</Data>\n'
        for port in ports:
            text += f'<Host "h{port}">\nAddress "127.0.0.1"\nPort "{port}"\nInterval {period_s}\n'
            for unit in range(1, units + 1):
                text += f'<Slave {unit}>\nInstance "u{unit}"\n' + "".join(f'Collect "r{r}"\n' for r in range(REGISTERS))
                text += "</Slave>\n"
            text += "</Host>\n"
        (folder / "collectd.conf").write_text(text + "</Plugin>\n")
        return Start(command=(self.program or "collectd", "-f", "-C", str(folder / "collectd.conf")), env={})


PEERS = (Sitewarden, ThingsBoard, NodeRed, Collectd)
