"""What the loudspeaker says next. Pure: open alarms and notices in, the sentence that is due out.

There is one item for each alarm: a newer state takes the place of an older one that was not said yet. What nobody has
acknowledged or silenced is repeated when its priority asks for that; everything else is said once. A restart begins
with the open alarms alone: it repeats what must be repeated, and does not say the others again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..opened import Open, Silenced
from .words import Saying, Sentence, more, saying_of

_MORE = ""  # id of the item that says how many are not said one by one; `times` is their number
_REPEAT_RANK = 2
_RETURNED_RANK = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the queue behaves.

    Attributes:
        repeat: priorities that are repeated until acknowledged or silenced, `repeat_s` after their last end.
        most: so many sentences may wait, those of `repeat` not counted; the others are counted in one sentence.
        keep_s: a sentence that is to be said once is dropped when it could not be said for so long.
    """

    repeat: frozenset[int] = frozenset({1})
    repeat_s: float = 30.0
    most: int = 20
    keep_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One alarm, or one text, and when it is said.

    Attributes:
        alarm: None for a text. text: None for an alarm, whose words are made of it.
        times: how often this state of it has been said. due_s: infinite when there is nothing more to say.
        since_s: when this state came. is_asked: somebody waits for it, so it is due whatever `due_s` says.
        is_heard: people have been told that this occurrence is on. is_over: it is closed; said once, then forgotten.
        misses: failed attempts since the last one that succeeded.
    """

    id: str
    priority: int
    since_s: float
    due_s: float
    alarm: Open | None = None
    text: Sentence | None = None
    times: int = 0
    is_asked: bool = False
    is_heard: bool = False
    is_over: bool = False
    misses: int = 0

    @property
    def state(self) -> object:
        """What is said; when this changes it is said anew."""
        a = self.alarm
        return (a.occurrence, a.priority, a.kind, a.active, a.acked, self.is_over) if a is not None else self.text

    def is_due(self, now_s: float) -> bool:
        return self.is_asked or self.due_s <= now_s

    @property
    def rank(self) -> int:
        """How urgent it is, the smallest first: priority 1 and 2, what is repeated, priority 3 and 4, what is over."""
        if self.alarm is not None and saying_of(self.alarm) is Saying.RETURNED and not self.is_asked:
            return _RETURNED_RANK
        if self.times and not self.is_asked:
            return _REPEAT_RANK
        return self.priority - 1 if self.priority <= 2 else self.priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What there is to say.

    Attributes:
        items: by id, in the order in which they came.
        more: alarms that are not said one by one.
        passed: items that could not be said since the last one that could: others have their turn before them.
    """

    items: Mapping[str, Item] = field(default_factory=dict[str, Item])
    more: int = 0
    passed: frozenset[str] = frozenset()


def observed(queue: Queue, alarms: Iterable[Open], now_s: float, rules: Rules, *, is_first: bool = False) -> Queue:
    """These alarms are open now, all of them.

    Args:
        is_first: after a start: what is not repeated has been said before it.
    """
    present = {alarm.id: alarm for alarm in alarms}
    items: dict[str, Item] = {}
    for name, old in queue.items.items():
        if old.alarm is None or old.is_over:
            items[name] = old
        elif name not in present and (over := _over(old, now_s)) is not None:
            items[name] = over
    for name, alarm in present.items():
        old = queue.items.get(name)
        items[name] = _seen(old, alarm, now_s, rules, is_first=is_first)
    return _bounded(replace(queue, items=items), rules)


def asked(queue: Queue, item: Item) -> Queue:
    """Somebody waits until this is said: now, and in the newest state that is known of this or a later occurrence."""
    known = queue.items.get(item.id)
    if known is not None and not known.is_over and _occurrence(known) >= _occurrence(item):
        item = known
    elif item.alarm is not None and item.alarm.acked:
        item = replace(item, due_s=math.inf)  # nobody but who asks wants to hear it
    return replace(queue, items={**queue.items, item.id: replace(item, is_asked=True)})


def new_item(alarm: Open, now_s: float) -> Item:
    """An alarm that nobody has said."""
    return Item(id=alarm.id, priority=alarm.priority, since_s=now_s, due_s=now_s, alarm=alarm)


def new_text(name: str, text: Sentence, priority: int, now_s: float) -> Item:
    """A text that is said once. `name`: no id of an alarm."""
    return Item(id=name, priority=priority, since_s=now_s, due_s=now_s, text=text)


def following(queue: Queue, silenced: Silenced, now_s: float) -> Item | None:
    """What is said now; None when nothing is due. A silenced alarm is not repeated; what is new of it is said."""
    due = [item for item in queue.items.values() if item.is_due(now_s) and not _is_quiet(item, silenced, now_s)]
    if due:
        return min(due, key=lambda item: (item.id in queue.passed, item.rank, item.due_s, item.since_s))
    return replace(new_text(_MORE, more(queue.more), 4, now_s), times=queue.more) if queue.more else None


def said(queue: Queue, item: Item, now_s: float, rules: Rules) -> Queue:
    """`item` was said to its end. Where a newer state has come meanwhile, that one is still to be said."""
    queue = replace(queue, passed=frozenset())
    if item.id == _MORE:
        return replace(queue, more=max(0, queue.more - item.times))
    items = dict(queue.items)
    now_ = items.get(item.id)
    if now_ is None:
        return queue
    told = item.alarm is not None and item.alarm.active
    if now_.state != item.state:
        items[item.id] = replace(now_, is_heard=now_.is_heard or told, misses=0)
    elif item.alarm is None or item.is_over:
        del items[item.id]
    else:
        due_s = now_s + rules.repeat_s if _is_repeated(item.alarm, rules) else math.inf
        items[item.id] = replace(
            now_, times=now_.times + 1, due_s=due_s, is_asked=False, is_heard=now_.is_heard or told, misses=0
        )
    return replace(queue, items=items)


def missed(queue: Queue, item: Item, now_s: float, pause_s: float) -> Queue:
    """`item` could not be said: others have their turn before it is tried again."""
    queue = replace(queue, passed=queue.passed | {item.id})
    now_ = queue.items.get(item.id)
    if now_ is None:
        return queue
    due_s = now_s + pause_s if now_.state == item.state and now_.due_s <= now_s else now_.due_s
    changed = replace(now_, due_s=due_s, is_asked=False, misses=now_.misses + 1)
    return replace(queue, items={**queue.items, item.id: changed})


def expired(queue: Queue, now_s: float, rules: Rules) -> Queue:
    """Without what is said once and is too old to be news."""
    items = {
        name: item
        for name, item in queue.items.items()
        if not (item.alarm is None or item.is_over) or now_s - item.since_s <= rules.keep_s
    }
    return queue if len(items) == len(queue.items) else replace(queue, items=items)


def waiting(queue: Queue, now_s: float) -> int:
    """How many sentences are due."""
    return sum(item.is_due(now_s) for item in queue.items.values()) + bool(queue.more)


def _seen(old: Item | None, alarm: Open, now_s: float, rules: Rules, *, is_first: bool) -> Item:
    fresh = new_item(alarm, now_s)
    is_same = old is not None and old.alarm is not None and _occurrence(old) == alarm.occurrence
    if is_same and old is not None:
        fresh = replace(fresh, is_heard=old.is_heard, is_asked=old.is_asked)
        if old.state == fresh.state:
            return replace(old, alarm=alarm)
    if alarm.acked or (is_first and not _is_repeated(alarm, rules)):
        return replace(fresh, due_s=math.inf, is_heard=fresh.is_heard or is_first)
    return fresh


def _over(old: Item, now_s: float) -> Item | None:
    """What there is to say of an alarm that has closed: that it is over, when people were told that it was on."""
    alarm = old.alarm
    assert alarm is not None
    if not old.is_heard or (saying_of(alarm) is Saying.RETURNED and old.times):
        return None
    closed = replace(alarm, active=False, acked=True)
    return replace(old, alarm=closed, since_s=now_s, due_s=now_s, times=0, is_asked=False, is_over=True, misses=0)


def _bounded(queue: Queue, rules: Rules) -> Queue:
    """Where too many wait, the least urgent of them are only counted."""
    unsaid = [
        item
        for item in queue.items.values()
        if item.alarm is not None
        and not item.times
        and item.due_s < math.inf
        and not item.is_asked
        and item.priority not in rules.repeat
    ]
    if len(unsaid) <= rules.most:
        return queue
    unsaid.sort(key=lambda item: (item.rank, item.since_s))
    items = dict(queue.items)
    for item in unsaid[rules.most :]:
        if item.is_over:
            del items[item.id]
        else:
            items[item.id] = replace(item, due_s=math.inf, times=1)
    return replace(queue, items=items, more=queue.more + len(unsaid) - rules.most)


def _is_repeated(alarm: Open, rules: Rules) -> bool:
    return not alarm.acked and alarm.priority in rules.repeat


def _is_quiet(item: Item, silenced: Silenced, now_s: float) -> bool:
    is_repeat = item.alarm is not None and item.times > 0 and not item.is_asked
    return is_repeat and item.alarm is not None and now_s < silenced.get(item.alarm.key, -math.inf)


def _occurrence(item: Item) -> int:
    return item.alarm.occurrence if item.alarm is not None else 0
