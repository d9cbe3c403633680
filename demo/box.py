"""The box that a started demo prints: addresses, people, PINs, and what to try. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..console.text import pad, width
from .config import DemoPerson

_ROLES = {
    "worker": "工人",
    "team_leader": "班组长",
    "keeper": "仓管员",
    "officer": "安全员",
    "control_room": "中控",
    "manager": "经理",
    "vice_president": "副总",
    "it": "信息员",
    "admin": "管理员",
}


def box(lines: Sequence[str]) -> list[str]:
    """The lines inside a frame."""
    inner = max(width(line) for line in lines) + 2
    middle = [f"│ {pad(line, inner - 2)} │" for line in lines]
    return [f"┌{'─' * inner}┐", *middle, f"└{'─' * inner}┘"]


def summary_lines(
    data: Path,
    addresses: Mapping[str, str],
    people: Sequence[DemoPerson],
    pins: Mapping[str, str],
    mqtt_passwords: Mapping[str, str],
    command: str = "sitewarden",
) -> list[str]:
    """Everything that a person needs to try the demo. `command`: how sitewarden was called, to be typed again."""
    labels = {
        "edge": "Control room 中控",
        "cloud": "Cloud 云端",
        "plant": "Plant 模拟工厂",
        "receiver": "Chat robot 群机器人",
    }
    pages = [f"{pad(label, 24)}{addresses[key]}" for key, label in labels.items()]
    mqtt = f"{pad('MQTT', 24)}{addresses['mqtt']}  user dashboard, password {mqtt_passwords['dashboard']}"
    names = {person.id: f"{person.name} {person.name_en}" for person in people}
    columns = max([width(name) for name in names.values()] + [6]) + 3
    roles = {person.id: ", ".join(_role(role) for role in person.roles) for person in people}
    role_columns = max([width(text) for text in roles.values()] + [5]) + 3
    rows = [pad(names[key], columns) + pad(roles[key], role_columns) + pins[key] for key in names]
    where = "" if data == Path("var/demo") else f" --data {data}"
    return [
        *box(
            [
                "Sitewarden demo is running  演示已启动",
                "",
                *pages,
                mqtt,
                f"{pad('Configuration 配置', 24)}{data / 'site.toml'}  (your edits stay 修改会保留)",
                f"{pad('Gateway folder 网关', 24)}{data / 'edge'}",
                "",
                pad("Person 人员", columns) + pad("Role 角色", role_columns) + "PIN",
                *rows,
            ]
        ),
        f"Apply an edited site.toml 应用修改:  {command} reload --data {data}",
        f"Push the humidity over its limit 让湿度超限:  {command} demo --humid{where}   (back 恢复: --dry)",
        "Sound the siren 让警号响:  push H₂S over 14 ppm on the plant's page 在模拟工厂页面把 H₂S 推过 14 ppm",
        "Ctrl-C stops everything 停止.",
    ]


def _role(role: str) -> str:
    return f"{role} {_ROLES[role]}" if role in _ROLES else role
