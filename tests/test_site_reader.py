"""site.toml read in a process of its own: same site, same problems, and nothing of what reads it in the daemon."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from sitewarden.edge import models, site_building, site_reader
from sitewarden.edge.site import load_site
from sitewarden.edge.site_reader import SiteReader, read_site
from sitewarden.edge.tables import SINGLE, Table, changed, plain
from sitewarden.errors import ConfigError, TransientError


def test_the_same_site_as_when_it_is_read_here(root: Path) -> None:
    path = root / "config" / "site.toml"
    apart, here = read_site(path, Path("/data")), load_site(path, Path("/data"))
    for field in dataclasses.fields(here):
        assert getattr(apart, field.name) == getattr(here, field.name), field.name
    assert apart.buses, "the example is more than a frame"


def test_the_same_problems_as_when_it_is_read_here(root: Path, tmp_path: Path) -> None:
    text = (root / "config" / "site.toml").read_text("utf-8")
    broken = tmp_path / "site.toml"
    broken.write_text(text.replace('parity = "', 'parity = "x') + '\n[[bus]]\nid = "B"\n', "utf-8")
    with pytest.raises(ConfigError) as here:
        load_site(broken)
    with pytest.raises(ConfigError) as apart:
        read_site(broken, tmp_path)
    assert len(here.value.problems) > 1
    assert (apart.value.source, apart.value.problems) == (here.value.source, here.value.problems)


def test_a_reader_that_is_killed_is_an_error_that_may_pass(root: Path, tmp_path: Path) -> None:
    reader = SiteReader(root / "config" / "site.toml", tmp_path)
    reader._child.kill()
    with pytest.raises(TransientError, match=r"site\.toml: its reader ended with -9 \(is memory short\?\)"):
        reader.result()


def test_a_defect_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(site_building, "build_site", lambda *_, **__: 1 / 0)
    answer = site_reader._read(Path("site.toml"), tmp_path)
    assert answer == ("defect", "ZeroDivisionError: division by zero")
    (tmp_path / "answer").write_bytes(pickle.dumps(answer))
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nexec cat '{tmp_path}/answer'\n", "utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        read_site(Path("site.toml"), tmp_path)


def test_the_daemon_loads_nothing_of_what_checks_a_file(root: Path) -> None:
    """Not even when it uses a site that has been read: its tables are plain values."""
    program = """
import json, sys
from pathlib import Path
import sitewarden.cli, sitewarden.edge.app, sitewarden.edge.front
from sitewarden.edge.site_reader import read_site
from sitewarden.edge.reload import diff
site = read_site(Path("config/site.toml"), Path("/data"))
assert not diff(site, site)
heavy = ("pydantic", "pydantic_core", "sitewarden.edge.models", "sitewarden.sensors.profiles")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    ran = subprocess.run((sys.executable, "-c", program), stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    assert json.loads(ran.stdout) == []


def test_tables_are_plain_values() -> None:
    assert set(models.SINGLE) == set(SINGLE)
    table = plain(models.AlarmTable.model_validate({"point": "a.b.c", "hi": {"limit": 3, "on_delay_s": 2.0}}))
    assert isinstance(table, Table)
    assert isinstance(table.hi, Table)
    assert list(vars(table)) == list(models.AlarmTable.model_fields)
    other = changed(table, {"point": "a.b.d"})
    assert (table.point, other.point, other.hi) == ("a.b.c", "a.b.d", table.hi)
    assert other != table
    assert changed(other, {"point": "a.b.c"}) == table
    assert pickle.loads(pickle.dumps(table)) == table
