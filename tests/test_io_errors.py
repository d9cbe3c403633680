"""A disk that fails now and then: errors surface, and nothing that was acknowledged is lost over all the restarts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from sitewarden.tests.peers.disk_trace import build, compiler

SOAK_S = float(os.environ.get("SITEWARDEN_SOAK_S", "600"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        why = "no C compiler: apt-get install gcc libc6-dev"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return build(tmp_path_factory.mktemp("library"), "failing_disk")


def worked(library: Path, folder: Path, what: str, seed: int, failures: int, seconds: float) -> dict[str, int]:
    """Work on a disk of which 2 % of the writes and syncs fail, as often and as long."""
    folder.mkdir()
    env = {"LD_PRELOAD": str(library), "FAIL_FOLDER": str(folder), "FAIL_COUNT": str(folder.with_suffix(".count"))}
    env |= {**os.environ, "FAIL_PER_MILLE": "20", "FAIL_SEED": str(seed)}
    args = (str(folder), what, str(seed), str(failures), str(seconds))
    command = [sys.executable, "-m", "sitewarden.tests.peers.failing_disk_work", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds + 240, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["edge", "cloud"])
def test_what_was_acknowledged_outlives_every_failure(library: Path, tmp_path: Path, what: str) -> None:
    found = worked(library, tmp_path / "disk", what, 7, 60, 120)
    assert found["failures"] >= 60, found
    assert found["lives"] >= 20, found
    assert min(found.values()) > 0, found


@pytest.mark.soak
@pytest.mark.parametrize("what", ["edge", "cloud"])
def test_failures_for_long(library: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.SystemRandom().randrange(10**9)
    found = worked(library, tmp_path / "disk", what, seed, 10**9, SOAK_S)
    with capsys.disabled():
        print(f"\nseed {seed}: {found}")
