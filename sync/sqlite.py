"""One SQLite file, one writing connection, one thread: group commit with full sync.

Two connections that write or checkpoint the same WAL can corrupt it (sqlite.org/wal.html#walresetbug), so
every file of the house has exactly one `Writer`; everyone else opens it read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import PermanentError
from .columns import DamagedError

_MOST_JOBS_IN_A_COMMIT = 512
_RELIEFS = 3
"""How often one commit may ask for room."""

# Primary result codes that are the job's own mistake (sqlite.org/rescode.html); every other one is the store's.
_JOBS_OWN = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
    }
)

Job = Callable[[sqlite3.Connection], Any]
Relief = Callable[[sqlite3.Connection], bool]
"""Makes room when the disk, or the file's own limit, is full; outside of a transaction. False: there is no more."""

_APPLIED = (
    """CREATE TABLE IF NOT EXISTS _sqlite_migrations
       (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)""",
    """CREATE UNIQUE INDEX IF NOT EXISTS idx__sqlite_migrations_migration_set_name
       ON _sqlite_migrations (migration_set, name)""",
)
_HEAD_BYTES, _MAGIC = 100, b"SQLite format 3\0"
_BUSY_MS = 10_000
_NOTE_APPLIED = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)"


_REFUSALS = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
    }
)
"""What SQLite says when the disk, and not the file's content, stands in the way."""


class Schema:
    """Numbered, all-or-nothing steps that make a file what the code expects.

    What was done stands in the table that sqlite-utils' migrations keep, which made the first files. The library is not
    used any more: it took a tenth of the daemon's first start for two dozen lines.

    Args:
        name: of the set, unique in the file.
        steps: in order; each is known by its function's name and never changed once it was released. It gets the
            connection in a transaction.
    """

    def __init__(self, name: str, steps: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
        self.name = name
        self.steps = tuple(steps)

    def apply(self, connection: sqlite3.Connection) -> None:
        """Run the steps that the file has not seen: all of them, or none when one fails.

        Raises:
            DamagedError: what the file says was run is not what its tables say.
        """
        if {step.__name__ for step in self.steps} <= self._applied(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _APPLIED:
                connection.execute(statement)
            applied = self._applied(connection)
            for step in self.steps:
                if step.__name__ not in applied:
                    _run_step(connection, step)
                    row = (self.name, step.__name__, str(datetime.now(UTC)))
                    connection.execute(_NOTE_APPLIED, row)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _applied(self, connection: sqlite3.Connection) -> set[str]:
        """Names of the steps that were run."""
        table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'"
        if connection.execute(table).fetchone() is None:
            return set()
        names = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (self.name,))
        return {name for (name,) in names}


def schema_in(connection: sqlite3.Connection) -> dict[str, str]:
    """Tables and indexes by name, as they were made."""
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())


def schema_made_by(make: Callable[[sqlite3.Connection], Any]) -> dict[str, str]:
    """The same of a new file."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make(connection)
        return schema_in(connection)


def _run_step(connection: sqlite3.Connection, step: Callable[[sqlite3.Connection], None]) -> None:
    try:
        step(connection)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise DamagedError(f"its tables are not those before {step.__name__}: {error}") from error


class StoreError(PermanentError):
    """The store could not commit. The owner must end the process: what was not committed was not announced.

    Attributes:
        path: the file that failed; None when that cannot be told.
    """

    def __init__(self, message: str, *, hint: str = "", path: Path | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class Writer:
    """Owns the only writing connection of `path`.

    Jobs that wait are committed together. A job that raises is rolled back alone; the others of its group commit.
    After a failed commit nothing more is taken: a later job must not be stored without an earlier one.

    Args:
        path: the database file; its folder must exist.
        prepare: run once on the writer's thread before any job (schema, migrations).
        relief: asked when a commit found no room; the commit is then tried again.
        shrinks: see `connect_for_writing`.
        patience: seconds to wait before each further try of a commit that the disk refused.
        near: `run_here` may use the loop's thread.
    """

    def __init__(
        self,
        path: Path,
        prepare: Callable[[sqlite3.Connection], None],
        relief: Relief = lambda _: False,
        *,
        shrinks: bool = False,
        patience: Sequence[float] = (),
        near: bool = False,
    ) -> None:
        self.path = path
        self._turn = threading.Lock()  # who has it uses the connection
        self._queued = 0
        self._committer = ThreadPoolExecutor(1, f"commit-{path.stem}") if near else None
        self._near: sqlite3.Connection | None = None
        self._shrinks, self._patience = shrinks, tuple(patience)
        self._relief = relief
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(prepare,), name=f"writer-{path.stem}", daemon=True)
        self._ready: Future[None] = Future()
        self._lock = threading.Lock()
        self._closed = False
        self._failure: StoreError | None = None

    def open(self) -> None:
        """Start the thread and wait until the file is open and prepared. Raises what `prepare` or SQLite raised."""
        self._thread.start()
        self._ready.result()

    def close(self) -> None:
        """Commit what waits, then close. Safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join()
        if self._committer is not None:
            self._committer.shutdown()

    def submit(self, job: Callable[[sqlite3.Connection], Any]) -> Future[Any]:
        """Queue `job`; the future resolves after its commit is on the device. Nobody can cancel it."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                future.set_exception(StoreError(f"{self.path}: is closed"))
            else:
                self._jobs.put((job, future))
                self._queued += 1
        return future

    async def run(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        """Await `submit`; cancelling the caller never withdraws the job."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(job)))

    async def run_here(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        """`run` for what takes microseconds: on the loop's thread, but for the commit, which waits for the device.

        A thread gets the interpreter back after each statement only when the loop lets go of it: that takes longer than
        the statement. Whatever is out of the ordinary (the file is busy, there is no room) goes the way of `run`, and
        `job` is run once more.

        Raises:
            StoreError: as `run`.
        """
        connection, committer = self._near, self._committer
        if connection is None or committer is None or not self._may_now():
            return await self.run(job)
        try:
            value = _run_now(connection, job)
        except _NotNowError:
            self._turn.release()
            return await self.run(job)
        except BaseException:
            self._turn.release()
            raise
        is_kept = await asyncio.shield(asyncio.wrap_future(committer.submit(self._commit_now, connection)))
        return value if is_kept else await self.run(job)

    def _may_now(self) -> bool:
        """Take the connection, unless somebody has it or waits for it: jobs stay in order."""
        with self._lock:
            return not self._queued and self._failure is None and self._turn.acquire(blocking=False)

    def _commit_now(self, connection: sqlite3.Connection) -> bool:
        """False: there was no room, which the writer's thread may make."""
        try:
            connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if is_full(error):
                return False
            raise self._fail(error, []) from error
        finally:
            self._turn.release()
        return True

    def _serve(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        try:
            connection = connect_for_writing(self.path, shrinks=self._shrinks, same_thread=self._committer is None)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        with contextlib.closing(connection):
            try:
                prepare(connection)
            except BaseException as error:
                connection.close()
                self._ready.set_exception(error)
                return
            self._near = connection
            self._ready.set_result(None)
            while (first := self._jobs.get()) is not None:
                group, last = self._gather(first)
                with self._turn:
                    self._commit(connection, group)
                with self._lock:
                    self._queued -= len(group)
                del first, group  # what the jobs hold, perhaps megabytes, while the next one is waited for
                if last:
                    break
            self._near = None
            self._turn.acquire()  # for good: nobody uses it any more

    def _gather(self, first: tuple[Job, Future[Any]]) -> tuple[list[tuple[Job, Future[Any]]], bool]:
        group = [first]
        while len(group) < _MOST_JOBS_IN_A_COMMIT:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _commit(self, connection: sqlite3.Connection, group: list[tuple[Job, Future[Any]]]) -> None:
        try:
            if self._failure is not None:
                raise self._failure
            done = self._run(connection, group)
        except BaseException as error:
            self._fail(error, group)
            return
        for future, value, failed in done:
            if failed is None:
                future.set_result(value)
            else:
                future.set_exception(failed)

    def _run(
        self, connection: sqlite3.Connection, group: list[tuple[Job, Future[Any]]]
    ) -> list[tuple[Future[Any], Any, BaseException | None]]:
        """One transaction of all jobs, again when room was made for it, or the disk may have changed its mind. Nothing
        of a failed one stays."""
        pauses = iter(self._patience)
        left = _RELIEFS
        while True:
            done: list[tuple[Future[Any], Any, BaseException | None]] = []
            try:
                connection.execute("BEGIN IMMEDIATE")
                for job, future in group:
                    done.append((future, *_run_in_savepoint(connection, job)))
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if left and is_full(error) and self._relief(connection):
                    left -= 1
                elif is_refusal(error) and (pause_s := next(pauses, None)) is not None:
                    time.sleep(pause_s)
                else:
                    raise
            else:
                return done

    def _fail(self, error: BaseException, group: list[tuple[Job, Future[Any]]]) -> StoreError:
        if self._failure is None:
            hint = "check free space and the health of the disk"
            self._failure = StoreError(f"{self.path}: {error}", hint=hint, path=self.path)
            self._failure.__cause__ = error
        for _, future in group:
            future.set_exception(self._failure)
        return self._failure


class _NotNowError(Exception):
    """The writer's thread should do it."""


def _run_now(connection: sqlite3.Connection, job: Callable[[sqlite3.Connection], Any]) -> Any:
    """In a transaction that is left open. Raises _NotNowError; what the job raised, and then nothing is left of it."""
    try:
        connection.execute("PRAGMA busy_timeout=0")  # nobody else writes; whoever does is waited for elsewhere
        try:
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        return job(connection)
    except Exception as error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if is_the_stores(error):
            raise _NotNowError from error
        raise


def _run_in_savepoint(connection: sqlite3.Connection, job: Job) -> tuple[Any, BaseException | None]:
    connection.execute("SAVEPOINT job")
    try:
        value = job(connection)
    except Exception as error:
        if is_the_stores(error):
            raise  # disk full, I/O error, damaged file: the whole group fails
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return None, error
    connection.execute("RELEASE job")
    return value, None


def is_the_stores(error: Exception) -> bool:
    """Whether the file failed, and not the job that used it."""
    code = getattr(error, "sqlite_errorcode", None)  # None: not from SQLite itself
    return code is not None and code & 0xFF not in _JOBS_OWN


def is_full(error: BaseException) -> bool:
    """Whether SQLite found no room: on the device, or under `max_page_count`."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def is_refusal(error: BaseException) -> bool:
    """Whether the disk takes nothing: read-only, full, input/output errors, not to be opened."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _REFUSALS


class _Connection(sqlite3.Connection):
    """Python fails at messages of SQLite that quote a damaged name; they are errors of the file like others."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            found = sqlite3.DatabaseError("the schema names what is no text")
            found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise found from error


def connect_for_writing(path: Path, *, shrinks: bool = False, same_thread: bool = True) -> sqlite3.Connection:
    """A connection in WAL mode with `synchronous=FULL` and explicit transactions.

    Args:
        shrinks: a new file can give free pages back (`PRAGMA incremental_vacuum`); costs a page here and there.
        same_thread: no other thread may use it.
    """
    _look_at_versions(path)
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=same_thread, timeout=_BUSY_MS / 1000, factory=_Connection
    )
    # auto_vacuum comes before anything else: later it is ignored
    first = ("auto_vacuum=INCREMENTAL",) if shrinks else ()
    last = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=4194304")
    return _set_up(connection, *first, *last)


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection; it never checkpoints. May be used from any one thread at a time."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=10, factory=_Connection)
    return _set_up(connection, "query_only=ON")


def _look_at_versions(path: Path) -> None:
    """A file whose first page names a version to come would be one that nobody can write to, like on a dead disk.

    Raises sqlite3.DatabaseError. Source: https://www.sqlite.org/fileformat2.html#the_database_header, 18 and 19.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        is_written = head.startswith(_MAGIC)  # after a power cut the first page may lie in the WAL alone
        if is_written and len(head) == _HEAD_BYTES and not {head[18], head[19]} <= {1, 2}:
            error = sqlite3.DatabaseError("its first page names a version that there is not")
            error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
            raise error


def _set_up(connection: sqlite3.Connection, *pragmas: str) -> sqlite3.Connection:
    connection.text_factory = _text
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # such as "unsupported file format"
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise
    return connection


def _text(data: bytes) -> str:
    """Text that went bad is still what a person, or a check, can say something about."""
    return data.decode("utf-8", "replace")
