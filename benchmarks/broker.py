"""A mosquitto of our own for the benchmarks, and a link to it that can be cut."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
from pathlib import Path

from meter import Child, free_port, listens, wait_for


class Broker:
    """mosquitto on a free port of 127.0.0.1, its settings the default ones but for queues without an end."""

    def __init__(self, folder: Path, more: str = "") -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise SystemExit("mosquitto is not installed: sudo apt install mosquitto")
        folder.mkdir(parents=True, exist_ok=True)
        self.program, self.conf, self.port = program, folder / "mosquitto.conf", free_port()
        self.log = folder / "mosquitto.log"
        user = Path(folder).owner()
        self.conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {folder}/\nuser {user}\nlog_type subscribe\n"
            f"log_dest file {self.log}\nlog_timestamp false\n{more}"
        )
        self.child: Child | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None:
            self.child.stop(signal.SIGKILL)

    def subscriptions(self) -> int:
        """How often somebody has subscribed to a topic of the devices."""
        return self.log.read_text().count("devices/")

    def start(self) -> None:
        self.child = Child(self.program, "-c", str(self.conf))
        wait_for("mosquitto", lambda: listens(self.port))

    def stop(self) -> None:
        """As systemd stops it: it writes what it has queued."""
        assert self.child is not None
        self.child.stop()
        self.child = None


class Relay:
    """A TCP link to a port that can be cut without a goodbye and made whole again."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._whole = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, refuse new ones."""
        self._whole = False
        for each in self._open:
            _shut(each)
        self._open.clear()

    def mend(self) -> None:
        self._whole = True

    def _accept(self) -> None:
        while True:
            here, _ = self._listening.accept()
            try:
                there = socket.create_connection(("127.0.0.1", self._to_port), 1) if self._whole else None
            except OSError:
                there = None
            if there is None:
                _shut(here)
                continue
            there.settimeout(None)
            self._open += [here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    _shut(source)
    _shut(target)


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()
