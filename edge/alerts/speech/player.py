"""The gateway's loudspeaker as a channel: it says what is open, one sentence at a time, the most urgent first.

A recorded clip of the site goes before the synthetic voice. That a sentence was said means that the player took all of
it and ended with 0 in time; nobody knows whether the amplifier is on, so a message is accepted and never delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ....errors import ConfigError
from ....words import mono_s
from ...loops import Run, again
from ..opened import NOBODY, Open, Silenced, concerning, heard, open_of, silence, still_silenced
from ..port import ChannelHealth, Fault, Notice, Outcome, Sent
from . import clips, queue, words
from .programs import ProgramError, Programs
from .queue import Item, Queue, Rules
from .voice import ESPEAK, HINT, Voice
from .words import Lang

_log = logging.getLogger(__name__)

_STOP_S = 5.0
_LOOK_S = 1.0
_PAUSE_BASE_S = 2.0
_PAUSE_CAP_S = 60.0
_SLACK, _SLACK_S = 1.5, 10.0  # a player may take so many times the length of a clip, and so much more
_DETAIL_LIMIT = 200
_FAULT_ZH = {
    ("player", Fault.OFFLINE): "扬声器不能播放：检查声卡，并安装 alsa-utils",
    ("player", Fault.SILENT): "声卡卡死，播放程序已被终止：检查声卡",
    ("voice", Fault.OFFLINE): "语音合成失败：安装 espeak-ng",
    ("voice", Fault.SILENT): "语音合成程序卡死",
    ("voice", Fault.REFUSING): "有一句话无法朗读",
}
_SYLLABLE = re.compile(r"[a-zü]+[1-5]")
_SOUND_HINT = "sudo apt-get install --no-install-recommends alsa-utils; `aplay -l` lists the sound cards"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSettings:
    """One loudspeaker. Raises ConfigError when it could not speak.

    Attributes:
        areas: whose alarms it says; none: those of the whole site.
        langs: each sentence is said in each of them, in this order.
        command: plays one WAV file, whose path is added, and ends with 0 when it was played.
        clips: folder of recorded clips; None when there are none.
        readings: pinyin of words of the site, `{"单县": "shan4 xian4"}`.
        priorities: that are said at all.
        repeat: priorities that are repeated every `repeat_s` until acknowledged or silenced.
        silence_s: a silence lasts so long; 0: until the acknowledgement.
        most_waiting: so many sentences may wait; of what comes then only the number is said.
        send_s: the longest that a notice waits for its turn.
        timezone: of the times that are said, an IANA name.
    """

    id: str
    areas: tuple[str, ...] = ()
    langs: tuple[Lang, ...] = (Lang.ZH,)
    command: tuple[str, ...] = ("aplay", "-q")
    clips: Path | None = None
    readings: Mapping[str, str] = field(default_factory=dict[str, str])
    priorities: frozenset[int] = frozenset({1, 2, 3})
    repeat: frozenset[int] = frozenset({1})
    repeat_s: float = 30.0
    silence_s: float = 900.0
    most_waiting: int = 20
    send_s: float = 90.0
    words_per_minute: int = 150
    timezone: str = "Asia/Shanghai"

    def __post_init__(self) -> None:
        problems = [] if self.command else ["command: is empty: name the program that plays a WAV file"]
        problems += [] if self.langs else ["langs: is empty: name zh, en or both"]
        problems += [
            f"readings.{word}: needs {len(word)} syllable(s) such as shan4 (got {said!r})"
            for word, said in self.readings.items()
            if not (word and len(said.split()) == len(word) and all(map(_SYLLABLE.fullmatch, said.split())))
        ]
        if problems:
            raise ConfigError(f"speech {self.id}", problems)


class Speech:
    """One loudspeaker. Enter it to start its task; nothing is said before `show` or `send` was called.

    Args:
        settings: of this loudspeaker.
    """

    def __init__(self, settings: SpeechSettings) -> None:
        self.settings = settings
        self.health = ChannelHealth()
        self._rules = Rules(repeat=settings.repeat, repeat_s=settings.repeat_s, most=settings.most_waiting)
        self._queue = Queue()
        self._silenced: Silenced = NOBODY
        self._alarms: tuple[Open, ...] | None = None
        self._programs = Programs(beat=self._beat)
        self._faults: dict[str, tuple[Fault, str]] = {}
        self._failures = 0
        self._wake = asyncio.Event()
        self._waiters: dict[str, list[asyncio.Future[Sent]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        name = f"speech {self.settings.id}"
        self._task = asyncio.create_task(_call(again(name, self._run)), name=name)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_STOP_S)

    # --- what it is told ---

    def show(self, alarms: Iterable[Open]) -> None:
        """These alarms are open now: all that are, on the whole site. Returns at once."""
        is_first, self._alarms = self._alarms is None, tuple(a for a in alarms if self._is_for(a))
        self._silenced = still_silenced(self._silenced, self._alarms, mono_s())
        self._change(queue.observed(self._queue, self._alarms, mono_s(), self._rules, is_first=is_first))

    def silence(self) -> tuple[str, ...]:
        """What is repeated now is not repeated any more; nothing is acknowledged, and what is new is said.

        Returns:
            Ids of the alarms that are silenced by this.
        """
        now_s = mono_s()
        repeated = heard(self._alarms or (), self._silenced, self.settings.repeat, now_s)
        until_s = now_s + self.settings.silence_s if self.settings.silence_s else math.inf
        self._silenced = silence(self._silenced, repeated, until_s)
        self._describe()
        return tuple(sorted(name for name, _, _ in repeated))

    async def send(self, notice: Notice) -> Sent:
        """ACCEPTED when the player has played it to its end. LATER when others are before it for too long.

        REFUSED for a person, since nobody knows who hears it, and when the alarm has closed before its turn.
        """
        if notice.to.person:
            detail = f"loudspeaker {self.settings.id} speaks to everybody and reaches no person by name"
            return Sent(outcome=Outcome.REFUSED, detail=detail)
        item = self._item(notice)
        if item.alarm is not None and not self._is_for(item.alarm):
            detail = f"loudspeaker {self.settings.id} is not for this area, or not for this priority"
            return Sent(outcome=Outcome.REFUSED, detail=detail)
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(item.id, []).append(future)
        self._change(queue.asked(self._queue, item))
        try:
            async with asyncio.timeout(self.settings.send_s):
                sent = await future
        except TimeoutError:
            before = queue.waiting(self._queue, mono_s())
            sent = Sent(outcome=Outcome.LATER, detail=f"{before} sentence(s) wait for the loudspeaker", retry_s=10.0)
        finally:
            self._waiters[item.id].remove(future)
            if not self._waiters[item.id]:
                del self._waiters[item.id]
        self.health.accepted += sent.outcome is Outcome.ACCEPTED
        self.health.failed += sent.outcome is Outcome.FAILED
        return sent

    def _is_for(self, alarm: Open) -> bool:
        return alarm.priority in self.settings.priorities and bool(concerning([alarm], self.settings.areas))

    def _item(self, notice: Notice) -> Item:
        if notice.is_test:
            return queue.new_text(f"test {notice.key}", words.TEST, notice.priority, mono_s())
        if (alarm := open_of(notice.facts)) is not None:
            return queue.new_item(alarm, mono_s())
        return queue.new_text(f"notice {notice.key}", words.said(notice.text), notice.priority, mono_s())

    # --- the loop ---

    async def _run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="sitewarden-speech-") as folder:
            voice = Voice(
                programs=self._programs,
                folder=Path(folder),
                readings=self.settings.readings,
                words_per_minute=self.settings.words_per_minute,
            )
            self._look_for_programs()
            while True:
                self._beat()
                self._wake.clear()
                now_s = mono_s()
                self._silenced = still_silenced(self._silenced, self._alarms or (), now_s)
                self._change(queue.expired(self._queue, now_s, self._rules), wakes=False)
                item = queue.following(self._queue, self._silenced, now_s)
                if item is None:
                    await self._rest(_LOOK_S)
                    continue
                await self._turn(item, voice)

    async def _turn(self, item: Item, voice: Voice) -> None:
        try:
            await self._say(item, voice)
        except ProgramError as error:
            self._failures += 1
            pause_s = min(_PAUSE_BASE_S * 2 ** min(item.misses, 10), _PAUSE_CAP_S)
            self._answer(item, Sent(outcome=Outcome.FAILED, detail=str(error)[:_DETAIL_LIMIT]))
            self._change(queue.missed(self._queue, item, mono_s(), pause_s), wakes=False)
            await self._rest(min(2.0 ** min(self._failures, 10), _PAUSE_CAP_S))
        else:
            self._failures = 0
            self.health.facts["last"] = self._texts(item)[self.settings.langs[0]]
            self._answer(item, Sent(outcome=Outcome.ACCEPTED, detail="the loudspeaker has played it"))
            self._change(queue.said(self._queue, item, mono_s(), self._rules), wakes=False)

    async def _say(self, item: Item, voice: Voice) -> None:
        for lang in self.settings.langs:
            clip = clips.find(self.settings.clips, lang, _clip_names(item))
            if clip is not None and await self._is_clip_played(clip):
                continue
            try:
                path = await voice.render(self._texts(item)[lang], lang)
            except ProgramError as error:
                self._fault("voice", error)
                raise
            self._fine("voice")
            await self._play(path)

    async def _is_clip_played(self, clip: Path) -> bool:
        """Whether it could be used; a clip that cannot is named in `facts`, and the voice says it instead."""
        bad: dict[str, str] = self.health.facts.setdefault("bad_clips", {})
        name = f"{clip.parent.name}/{clip.name}"
        if clips.length_s(clip) is None:
            bad[name] = "no PCM WAV file, or empty"
            return False
        try:
            await self._play(clip)
        except ProgramError as error:
            if error.fault is Fault.SILENT:
                raise
            bad[name] = error.message[:_DETAIL_LIMIT]
            return False
        bad.pop(name, None)
        return True

    async def _play(self, path: Path) -> None:
        limit_s = (clips.length_s(path) or 0.0) * _SLACK + _SLACK_S
        try:
            await self._programs.run((*self.settings.command, str(path)), limit_s)
        except ProgramError as error:
            told = ProgramError(error.fault, error.message, hint=error.hint or _SOUND_HINT)
            self._fault("player", told)
            raise told from error
        self._fine("player")

    def _texts(self, item: Item) -> words.Sentence:
        if item.alarm is not None:
            return words.sentence(item.alarm, self.settings.timezone)
        assert item.text is not None
        return item.text

    # --- news, faults ---

    def _change(self, changed: Queue, *, wakes: bool = True) -> None:
        self._queue = changed
        for name in [name for name in self._waiters if name not in changed.items]:
            gone = Sent(outcome=Outcome.REFUSED, detail="the alarm has closed, and there is nothing to say any more")
            self._resolve(name, gone)
        self._describe()
        if wakes:
            self._wake.set()

    def _answer(self, item: Item, sent: Sent) -> None:
        self._resolve(item.id, sent)

    def _resolve(self, name: str, sent: Sent) -> None:
        for future in self._waiters.get(name, ()):
            if not future.done():
                future.set_result(sent)

    async def _rest(self, seconds: float) -> None:
        """Until somebody wants something, or so long."""
        end_s = mono_s() + seconds
        while not self._wake.is_set() and (left_s := end_s - mono_s()) > 0:
            self._beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await self._wake.wait()

    def _look_for_programs(self) -> None:
        """Say before the first alarm what will not work."""
        for name, program, hint in (("player", self.settings.command[0], _SOUND_HINT), ("voice", ESPEAK, HINT)):
            if shutil.which(program) is None:
                self._fault(name, ProgramError(Fault.OFFLINE, f"{program} is not installed", hint=hint))

    def _fault(self, name: str, error: ProgramError) -> None:
        if name not in self._faults:
            _log.warning("speech %s: %s", self.settings.id, error)
        self._faults[name] = (error.fault, str(error)[:_DETAIL_LIMIT])
        self._describe()

    def _fine(self, name: str) -> None:
        if self._faults.pop(name, None) is not None:
            _log.info("speech %s: the %s works again", self.settings.id, name)
        self._describe()

    def _beat(self) -> None:
        self.health.beat_s = mono_s()

    def _describe(self) -> None:
        self.health.fault = next((fault for fault, _ in self._faults.values()), Fault.NONE)
        self.health.detail = "; ".join(told for _, told in self._faults.values())
        self.health.facts["en"] = self.health.detail
        self.health.facts["zh"] = "；".join(_FAULT_ZH[name, fault] for name, (fault, _) in self._faults.items())
        self.health.facts["waiting"] = queue.waiting(self._queue, mono_s())
        self.health.facts["silenced"] = sorted({name for name, _, _ in self._silenced})


async def _call(run: Run) -> None:
    await run()


def _clip_names(item: Item) -> tuple[str, ...]:
    if item.alarm is not None:
        return clips.names(item.alarm)
    return (clips.TEST_CLIP,) if item.text is words.TEST else ()
