"""Site folders for the benchmarks: `site.toml` and `people.csv`, two limits on every point."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from meter import free_port

FIELDS = ("n", "a", "b", "c", "d", "e")
MQTT_DEVICES = 20
OVER = 80.0
"""The limit hi of `alarm_site`."""
_PEOPLE = "id,name,name_en,roles,areas,phone\nk,K,K,keeper,*,\no,O,O,officer,*,\n"


def empty_site(folder: Path, more: str = "", flush_s: float = 10.0) -> Path:
    """A site with an area and no device; `more` is added to its site.toml. Returns the site.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    text = '[site]\nid = "bench"\nname = "b"\nname_en = "b"\n'
    text += f'[gateway]\nid = "gw1"\nflush_s = {flush_s}\n[web]\nport = {free_port()}\n'
    text += f'[[area]]\nid = "area"\nname = "a"\nname_en = "a"\n{more}'
    (folder / "people.csv").write_text(_PEOPLE, "utf-8")
    (folder / "site.toml").write_text(text, "utf-8")
    return folder / "site.toml"


def modbus_site(folder: Path, ports: Sequence[int], units: int, registers: int, period_s: float) -> Path:
    """`units` units with `registers` registers behind each port, with a profile of the site's own."""
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "bench.toml").write_text(profile(registers), "utf-8")
    text = '[profiles]\nfolder = "profiles"\n'
    for b, port in enumerate(ports):
        text += f'[[bus]]\nid = "b{b}"\nkind = "tcp"\nhost = "127.0.0.1"\nport = {port}\n'
        for unit in range(1, units + 1):
            text += f'[[device]]\nid = "d{b}_{unit}"\narea = "area"\nbus = "b{b}"\nunit_id = {unit}\n'
            text += f'profile = "bench"\npoll_s = {period_s:.3f}\n'
            for r in range(registers):
                text += f'[[alarm]]\npoint = "area.d{b}_{unit}.r{r}"\nhi = 2000.0\nhihi = 3000.0\n'
    return empty_site(folder, text)


def profile(registers: int) -> str:
    """A catalogue file: holding registers 0 and up, one decimal each."""
    text = 'id = "bench"\nname = "bench"\nname_en = "bench"\nsource = "benchmarks"\n'
    for r in range(registers):
        text += f'\n[[registers]]\nname = "r{r}"\nname_zh = "r{r}"\nname_en = "r{r}"\nunit = "x"\nquantity = "other"\n'
        text += f'decimals = 1\naddress = {r}\ntype = "u16"\nscale = 0.1\n'
    return text


def mqtt_site(folder: Path, broker_port: int, flush_s: float = 10.0) -> Path:
    """Devices d0 … d19 on topics devices/d0 … d19 with the numbers `FIELDS`; `n` is the publisher's own count."""
    text = f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker_port}"\n'
    for i in range(MQTT_DEVICES):
        text += f'[[mqtt_device]]\nid = "d{i}"\narea = "area"\ntopic = "devices/d{i}"\nevery_s = 1.0\n'
        for name in FIELDS:
            text += f'[[mqtt_device.point]]\nname = "{name}"\nlabel = "x"\nlabel_en = "x"\npath = "{name}"\n'
            text += f'unit = "x"\nquantity = "other"\ndecimals = {0 if name == "n" else 1}\n'
    for i in range(MQTT_DEVICES):
        for name in FIELDS[1:]:
            text += f'[[alarm]]\npoint = "area.d{i}.{name}"\nhi = 200.0\nhihi = 300.0\n'
    return empty_site(folder, text, flush_s)


def alarm_site(folder: Path, broker_port: int, web_port: int, devices: int, points: int) -> Path:
    """Devices d0 … on topics devices/d0 … with the numbers p0 …, four limits on each, no delays.

    Written as short as TOML allows: a site.toml may have a megabyte.
    """
    text = f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker_port}"\n'
    limits = f"lolo=-{OVER},lo=0,hi={OVER},hihi={2 * OVER},on_delay_s=0"
    for i in range(devices):
        text += f'[[mqtt_device]]\nid="d{i}"\narea="area"\ntopic="devices/d{i}"\nevery_s=10\npoint=[\n'
        for p in range(points):
            text += f'{{name="p{p}",label="x",label_en="x",path="p{p}",unit="x",quantity="other"}},\n'
        text += "]\n"
    for i in range(devices):
        for p in range(points):
            text += f'[[alarm]]\npoint="area.d{i}.p{p}"\n' + limits.replace(",", "\n") + "\n"
    site = empty_site(folder, text)
    site.write_text(re.sub(r"port = \d+", f"port = {web_port}", site.read_text("utf-8"), count=1), "utf-8")
    return site
