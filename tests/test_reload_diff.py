"""What a changed configuration changes: in words, and for buses, brokers and links."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sitewarden.edge.reload import NEEDS_RESTART, Changes, Count, diff, keep_fixed
from sitewarden.edge.site import Site, load_site

GOOD = Path(__file__).parent / "golden" / "site" / "good"
RELAY = """
[[device]]
id = "relay"
area = "store"
bus = "net"
unit_id = 9
profile = "relay_siren"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The good site in a folder of its own."""
    for name in ("site.toml", "people.csv"):
        shutil.copy(GOOD / name, tmp_path)
    return tmp_path


def edit(folder: Path, old: str, new: str, file: str = "site.toml") -> None:
    path = folder / file
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"must stand once: {old}"
    path.write_text(text.replace(old, new), "utf-8")


def load(folder: Path) -> Site:
    return load_site(folder / "site.toml", Path("/data"))


def change(folder: Path, *edits: tuple[str, str]) -> Changes:
    old = load(folder)
    for before, after in edits:
        edit(folder, before, after)
    return diff(old, load(folder))


TH2 = 'id = "th2"\narea = "store"\nbus = "net"\nunit_id = 1\nprofile = "xy_md02"\n'
HIHI = "hihi = { limit = 85, priority = 2 }"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (TH2, f"{TH2}poll_s = 2\n", ["device store.th2: poll_s 5 -> 2"]),
        (TH2, f"{TH2}poll_s = 5.0\n", []),
        (TH2, f"# a remark\n{TH2}", []),
        (TH2, TH2.replace("store", "pit"), ["device store.th2: area store -> pit"]),
        (TH2, TH2.replace("net", "line").replace("= 1", "= 7"), 2 * ["device store.th2"]),
        ('id = "th2"', 'id = "th3"', ["device store.th2: removed", "device store.th3: added"]),
        ("port = 502", "port = 503", ["bus net: port 502 -> 503"]),
        ('kind = "tcp"', 'kind = "rtu_tcp"\nlate_max_ms = 900', 2 * ["bus net"]),
        ("hi = 75", "hi = 76.5", ["alarm store.th1.humidity: hi 75 -> 76.5"]),
        (HIHI, "", ["alarm store.th1.humidity: hihi {limit = 85, priority = 2} -> none"]),
        (HIHI, "hihi = 85", ["alarm store.th1.humidity: hihi {limit = 85, priority = 2} -> 85"]),
        ('[[alarm]]\npoint = "pit.gas1.ch4"\nhi = 25\nhihi = 50', "", ["alarm pit.gas1.ch4: removed"]),
        ('name = "池"', 'name = "水池"', ["area pit: name 池 -> 水池"]),
        ('path = "ch4"', 'path = "gas.ch4"', ["mqtt_device pit.gas1: point ch4: path ch4 -> gas.ch4"]),
        ('topic = "devices/gas1"', 'topic = "devices/g"', ["mqtt_device pit.gas1: topic devices/gas1 -> devices/g"]),
        ('channels = ["robot", "sms"]', 'channels = ["sms"]', ["alerts.channels robot, sms -> sms"]),
        ('["keeper", "officer"]', '["officer"]', ["alerts.required_acks keeper, officer -> officer"]),
        ('[cloud]\nurl = "https://hq.example"', "", ["[cloud]: removed"]),
        ('name_en = "Plant"', 'name_en = "Works"', ["site.name_en Plant -> Works"]),
        ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1884", ["mqtt.url mqtt://127.0.0.1:1883 -> mqtt://127.0.0.1:1884"]),
    ],
)
def test_words(folder: Path, old: str, new: str, lines: list[str]):
    found = change(folder, (old, new)).lines
    assert len(found) == len(lines), found
    for said, wanted in zip(found, lines, strict=True):
        assert said.startswith(wanted) if wanted.startswith(("device store.th2", "bus net")) else said == wanted


def test_the_same_file_changes_nothing(folder: Path):
    site = load(folder)
    rules = len(site.rules)
    assert diff(site, load(folder)) == Changes(devices=Count(untouched=3), rules=Count(untouched=rules))
    assert not diff(site, load(folder))


def test_devices_and_rules_are_counted(folder: Path):
    old = load(folder)
    edit(folder, TH2, f"{TH2}poll_s = 2\n")
    one = diff(old, load(folder))
    assert one.devices == Count(changed=1, untouched=2)
    assert one.rules.changed > 0, "silence is counted in polls"
    edit(folder, TH2 + "poll_s = 2\n", TH2)
    edit(folder, HIHI, HIHI.replace("85", "86"))
    limit = diff(old, load(folder))
    assert (limit.devices, limit.rules) == (Count(untouched=3), Count(changed=1, untouched=len(old.rules) - 1))
    (folder / "site.toml").write_text((folder / "site.toml").read_text("utf-8") + RELAY, "utf-8")
    assert diff(old, load(folder)).devices == Count(added=1, untouched=3)
    assert diff(load(folder), old).devices == Count(removed=1, untouched=3)
    edit(folder, "port = 502", "port = 503")
    assert diff(old, load(folder)).devices == Count(added=1, changed=1, untouched=2), "its wire is another one"
    edit(folder, "mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1884")
    assert diff(old, load(folder)).devices == Count(added=1, changed=2, untouched=1), "its broker is another one"


def test_the_order_of_the_file_means_nothing(folder: Path):
    text = (folder / "site.toml").read_text("utf-8")
    (folder / "site.toml").write_text(text + RELAY, "utf-8")
    old = load(folder)
    (folder / "site.toml").write_text(text.replace('[[device]]\nid = "th1"', f'{RELAY}[[device]]\nid = "th1"'), "utf-8")
    changes = diff(old, load(folder))
    assert (changes.lines, changes.revision) == ((), True)


def test_buses(folder: Path):
    old = load(folder)
    edit(folder, TH2, f"{TH2}poll_s = 2\n")
    assert diff(old, load(folder)).changed == ("net",)
    edit(folder, "port = 502", "port = 503")
    moved = diff(old, load(folder))
    assert (moved.stopped, moved.started, moved.changed) == (("net",), ("net",), ())
    edit(folder, f"[[device]]\n{TH2}poll_s = 2\n", "")
    gone = diff(old, load(folder))
    assert (gone.stopped, gone.started, gone.changed) == (("net",), (), ()), "a bus without a device is not polled"
    back = diff(load(folder), old)
    assert (back.stopped, back.started, back.changed) == ((), ("net",), ())


def test_brokers_and_headquarters(folder: Path):
    old = load(folder)
    edit(folder, 'path = "ch4"', 'path = "gas.ch4"')
    points = diff(old, load(folder))
    assert (points.links_stopped, points.broker, points.cloud) == ((), False, False)
    edit(folder, "mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1884")
    moved = diff(old, load(folder))
    assert (moved.links_stopped, moved.broker) == (("mqtt",), True)
    edit(folder, "https://hq.example", "https://hq2.example")
    assert diff(old, load(folder)).cloud


def test_secrets_and_private_values_stay_out_of_the_words(folder: Path):
    (folder / "pw").write_text("hunter2\n", "utf-8")
    (folder / "robot").write_text("https://robot.example/send?key=abc123\n", "utf-8")
    edit(
        folder, 'url = "mqtt://127.0.0.1:1883"', 'url = "mqtt://127.0.0.1:1883"\nusername = "gw"\npassword_file = "pw"'
    )
    edit(folder, 'url = "https://robot.example/send"', 'url_file = "robot"')
    old = load(folder)
    (folder / "pw").write_text("hunter3\n", "utf-8")
    (folder / "robot").write_text("https://robot.example/send?key=abc124\n", "utf-8")
    rows = (folder / "people.csv").read_text("utf-8").splitlines()
    first = rows[1].split(",")
    rows[1] = ",".join([first[0], "新名", "New Name", *first[3:5], "13912345678"])
    (folder / "people.csv").write_text("\n".join(rows) + "\n", "utf-8")
    changes = diff(old, load(folder))
    assert changes.lines == (
        "mqtt.password_file: holds another password",
        "channel robot: url_file holds another address",
        f"person {first[0]}: name changed",
        f"person {first[0]}: name_en changed",
        f"person {first[0]}: phone changed",
    )
    assert changes.broker
    assert not changes.revision
    edit(folder, 'url_file = "robot"', 'url = "https://robot.example/elsewhere"')
    words = " ".join(diff(old, load(folder)).lines)
    assert "channel robot: url changed" in words
    assert "elsewhere" not in words


def test_another_password_of_another_broker_is_a_change(folder: Path):
    (folder / "pw").write_text("one\n", "utf-8")
    text = (folder / "site.toml").read_text("utf-8").replace('topic = "devices/gas1"', 'topic = "g"\nbroker = "far"')
    table = '\n[[broker]]\nid = "far"\nurl = "mqtts://far.example"\nusername = "gw"\npassword_file = "pw"\n'
    (folder / "site.toml").write_text(text + table, "utf-8")
    old = load(folder)
    (folder / "pw").write_text("two\n", "utf-8")
    changes = diff(old, load(folder))
    assert changes.lines == ("broker far: password_file holds another password",)
    assert (changes.links_stopped, changes.broker) == (("far",), False)


def test_a_profile_of_the_site_that_was_edited(folder: Path):
    (folder / "profiles").mkdir()
    source = Path(load_site.__code__.co_filename).parent.parent / "sensors" / "catalogue" / "xy_md02.toml"
    own = folder / "profiles" / "own.toml"
    own.write_text(source.read_text("utf-8").replace('id = "xy_md02"', 'id = "own"'), "utf-8")
    edit(folder, 'profile = "xy_md02"', 'profile = "own"')
    edit(folder, "[people]", '[profiles]\nfolder = "profiles"\n\n[people]')
    old = load(folder)
    own.write_text(own.read_text("utf-8").replace("address = 0x0001", "address = 0x0005"), "utf-8")
    changes = diff(old, load(folder))
    assert changes.lines == ("device store.th2: profile own was changed",)
    assert changes.changed == ("net",)
    assert not changes.revision
    own.write_text(own.read_text("utf-8").replace("name_en = ", 'name_en = "other" # '), "utf-8")
    assert diff(load(folder), old).lines


def test_keys_that_need_a_restart(folder: Path):
    old = load(folder)
    edit(folder, 'id = "plant"', 'id = "works"')
    edit(folder, "port = 8080", "port = 8081")
    edit(folder, 'id = "gw1"', 'id = "gw2"\nflush_s = 5')
    new = load(folder)
    changes = diff(old, new)
    assert changes.needs_restart == ("site.id", "gateway.id", "gateway.flush_s", "web.port")
    assert changes.lines == ()
    kept = keep_fixed(old, new)
    for name in NEEDS_RESTART:
        assert getattr(kept, name) == getattr(old, name) == kept.tables[name][0]
    assert diff(kept, new).needs_restart == changes.needs_restart, "told until the restart"
    assert not diff(kept, new)


def test_outputs_of_the_site(folder: Path):
    text = (folder / "site.toml").read_text("utf-8")
    (folder / "site.toml").write_text(text + RELAY, "utf-8")
    siren, lamp = load(folder).outputs
    assert (siren.id, siren.bus, siren.device, siren.states) == (
        "store.relay.siren",
        "net",
        "store.relay",
        ("off", "on"),
    )
    assert (lamp.name, lamp.name_en, lamp.area) == ("库警灯", "Store lamp", "store")
