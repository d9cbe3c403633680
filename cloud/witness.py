"""The cloud as witness: `POST /v1/gateways/{gw}/checkpoints`.

It countersigns that a checkpoint is what it holds itself: the same records, the same chain, the same Merkle root, never
fewer than before. A checkpoint that contradicts the records here is refused as `fork` and kept: signed by the gateway's
key, it proves that there are two histories.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RefusedError
from ..sync.keys import public_key_text
from ..sync.merkle import Range, root
from ..sync.notes import (
    Checkpoint,
    Note,
    NoteError,
    cosign,
    gateway_and_epoch,
    parse_note,
    verify_note,
    witness_name,
)
from ..words import utc_text
from .config import GatewayTable
from .witness_store import Standing, Witnessed, WitnessStore

_log = logging.getLogger(__name__)

PATH = "/v1/gateways/{gateway}/checkpoints"
SLICE = 1_000
"""Records hashed in one go: some milliseconds, in which the database serves nobody else."""
MOST_AT_ONCE = 50_000
"""Records hashed for one request, under a second: a gateway with a long journal asks again and it goes on."""
_STATUS = {"bad_request": 400, "bad_signature": 401, "fork": 409, "behind": 409}


class Witness:
    """Judges checkpoints, and countersigns.

    Args:
        key: of this cloud as witness; nothing else is signed with it.
        changed: called with the gateway's id when pages have something new to show.
        clock: UTC seconds.
    """

    def __init__(
        self,
        store: WitnessStore,
        key: Ed25519PrivateKey,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._key, self._changed, self._clock = store, key, changed, clock
        self.key_text, self._name = public_key_text(key), witness_name(key)
        self._turns: dict[str, asyncio.Lock] = {}
        self._refused: dict[str, str] = {}

    async def post(self, gateway: GatewayTable, body: bytes) -> web.Response:
        """The answer to a checkpoint of a gateway that has signed the request."""
        try:
            async with self._turns.setdefault(gateway.id, asyncio.Lock()):  # gateways that are known: not ever more
                answer = await self.judge(gateway.id, tuple(gateway.keys().values()), body)
        except RefusedError as refused:
            self._log(gateway.id, refused)
            error = {"reason": refused.reason, "message": refused.message, "hint": refused.hint}
            return web.json_response({"error": error, "time_ms": self._now_ms()}, status=_STATUS[refused.reason])
        if answer["state"] == "witnessed":
            self._log(gateway.id, None)
        return web.json_response(answer | {"time_ms": self._now_ms()})

    async def judge(self, gateway: str, keys: tuple[Ed25519PublicKey, ...], body: bytes) -> dict[str, Any]:
        """`witnessed` with cosignature and key, or `not_yet` with how many records could be witnessed now.

        Raises:
            RefusedError: `bad_request`, `bad_signature`, `behind`, or `fork`, which was kept.
        """
        epoch, checkpoint, note = _read(gateway, keys, body)
        standing = await self._store.standing(gateway, epoch, checkpoint.size)
        if standing.same is not None and parse_note(standing.same.note).text == note.text:
            return self._answer(standing.same)
        if problem := _contradiction(checkpoint, standing):
            await self._refuse_fork(gateway, epoch, checkpoint, note, problem)
        if standing.last is not None and checkpoint.size <= standing.last.size:
            message = f"{standing.last.size} records are witnessed already, this checkpoint has {checkpoint.size}"
            raise RefusedError("behind", message, hint="send the newest one")
        if standing.chain is None:
            return {"state": "not_yet", "have": standing.newest}
        tree = await self._grow(gateway, epoch, checkpoint.size)
        if tree.size != checkpoint.size:
            return {"state": "not_yet", "have": 0}
        if root(tree) != checkpoint.root:
            await self._refuse_fork(gateway, epoch, checkpoint, note, "the Merkle root is not that of the records here")
        return self._answer(await self._countersign(gateway, epoch, checkpoint, note, tree))

    async def _grow(self, gateway: str, epoch: str, size: int) -> Range:
        """The tree of the records here up to `size`, or as far as they go and this request may take."""
        tree = before = await self._store.tree(gateway, epoch)
        while tree.size < size:
            most = min(size, tree.size + SLICE, before.size + MOST_AT_ONCE)
            grown = await self._store.grown(gateway, epoch, tree, most)
            if grown.size == tree.size:
                break
            tree = grown
        if tree.size == before.size + MOST_AT_ONCE:
            await self._store.keep_tree(gateway, epoch, tree)
        return tree

    async def _countersign(
        self, gateway: str, epoch: str, checkpoint: Checkpoint, note: Note, tree: Range
    ) -> Witnessed:
        time_s = int(self._clock())
        line = cosign(note.text, self._name, self._key, time_s).line()
        new = Witnessed(epoch=epoch, size=checkpoint.size, note=str(note), cosignature=line, time_s=time_s)
        kept = await self._store.keep(gateway, new, tree)
        self._changed(gateway)
        return kept

    async def _refuse_fork(self, gateway: str, epoch: str, checkpoint: Checkpoint, note: Note, why: str) -> None:
        size = checkpoint.size
        if await self._store.keep_fork(gateway, epoch, size, str(note), why, self._now_ms()):
            _log.error("gateway %s: a checkpoint of %d records contradicts what is kept here: %s", gateway, size, why)
            self._changed(gateway)
        hint = "the gateway's data was altered, restored or cloned, or somebody else has its key: run sitewarden verify"
        raise RefusedError("fork", f"{size} records of epoch {epoch}: {why}", hint=hint)

    def _answer(self, witnessed: Witnessed) -> dict[str, Any]:
        return {"state": "witnessed", "cosignature": witnessed.cosignature, "key": self.key_text}

    def _log(self, gateway: str, refused: RefusedError | None) -> None:
        reason = refused.reason if refused else ""
        if self._refused.get(gateway, "") != reason:
            self._refused[gateway] = reason
            text = f"refused: {refused}" if refused else "countersigned again"
            _log.warning("gateway %s, checkpoints: %s", gateway, text)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _read(gateway: str, keys: tuple[Ed25519PublicKey, ...], body: bytes) -> tuple[str, Checkpoint, Note]:
    """Epoch, checkpoint and note, signed by the gateway and about itself."""
    try:
        note = parse_note(body)
        checkpoint = Checkpoint.parse(note.text)
        named, epoch = gateway_and_epoch(checkpoint.origin)
        if named != gateway or not checkpoint.size:
            raise NoteError(f"a checkpoint of {gateway} begins with its own name, and covers at least one record")
    except NoteError as error:
        raise RefusedError("bad_request", str(error)) from error
    try:
        verify_note(note, checkpoint.origin, keys)
    except NoteError as error:
        raise RefusedError("bad_signature", str(error)) from error
    return epoch, checkpoint, note


def _contradiction(checkpoint: Checkpoint, standing: Standing) -> str:
    """Why both cannot be true, "" when they can as far as the chain tells."""
    if standing.chain is not None and standing.chain != checkpoint.chain:
        return f"record {checkpoint.size} that is kept here has another chain value"
    if standing.same is not None and Checkpoint.parse(parse_note(standing.same.note).text).root != checkpoint.root:
        return "another Merkle root was witnessed at this size"
    return ""


def witness_json(shown: dict[str, Any]) -> dict[str, Any]:
    """`WitnessStore.shown` as pages get it: the newest checkpoint as a whole note, and the contradictions."""
    last: Witnessed | None = shown["last"]
    newest = None
    if last is not None:
        at, note = utc_text(last.time_s * 1000), last.note + last.cosignature
        newest = {"epoch": last.epoch, "records": last.size, "at": at, "note": note}
    forks = [{**fork, "at": utc_text(fork["received_ms"])} for fork in shown["forks"]]
    return {"last": newest, "forks": [{k: v for k, v in fork.items() if k != "received_ms"} for fork in forks]}
