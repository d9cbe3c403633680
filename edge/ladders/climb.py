"""A ladder that climbs: which rungs are due, once each and in order, through outages and clocks that step. Pure.

How time is counted:

- Within one boot of the machine the monotonic clock alone counts (CLOCK_BOOTTIME never steps and goes on in suspend).
- Across boots the wall clock counts, as far as `Wall` believes it: downtime counts.
- When what is believed of the wall clock jumps while the subject's boot still runs, `t0_utc_ms` is told anew
  (`dated`), so that the same moment stays the same moment.
- No less has passed than the machine is up since a later boot, whatever the wall clock says.
- When the clock of the machine is *earlier* at start than it was when the gateway was last alive, nobody can know how
  long it was off: the next rung of each ladder that only tells people is climbed at once (`early`), a freeze never is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...words import ClockState, Instant, utc_from_text
from .plan import Action, Basis, Plan, Rung

LATE_S = 5.0
"""A rung that is climbed this much after its time is marked late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a ladder is about.

    Attributes:
        kind: `alarm`, `hazard`, `approval`, `permit` …
        id, occurrence: which one; together with `kind` the identity of the ladder.
        is_fault: a fault of the system itself, which freezes nothing.
    """

    kind: str
    id: str
    occurrence: int = 0
    area: str = ""
    name: str = ""
    name_en: str = ""
    priority: int = 3
    is_fault: bool = False

    @property
    def key(self) -> str:
        """Identity, unique on a gateway."""
        return f"{self.kind}/{self.id}/{self.occurrence}"

    def to_json(self) -> dict[str, Any]:
        """As records carry it."""
        return {
            "kind": self.kind,
            "id": self.id,
            "occurrence": self.occurrence,
            "area": self.area,
            "name": self.name,
            "name_en": self.name_en,
            "priority": self.priority,
            "is_fault": self.is_fault,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Subject:
        """Inverse of `to_json`."""
        return cls(**{key: fields[key] for key in cls.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """A ladder under way.

    Attributes:
        rungs: as they were when it began; a changed site.toml counts for the next one.
        t0: the first moment. `t0_utc_ms`: the same on the wall clock as it is set now.
        climbed: how many rungs are behind it.
        paused: why nothing is climbed for now, empty while it climbs: `acked`, `returned`, `suppressed`.
    """

    subject: Subject
    plan: str
    basis: Basis
    rungs: tuple[Rung, ...]
    t0: Instant
    t0_utc_ms: int
    climbed: int
    paused: str = ""

    @staticmethod
    def key_of(subject: Mapping[str, Any]) -> str:
        """`Subject.key` of its JSON."""
        return f"{subject['kind']}/{subject['id']}/{subject['occurrence']}"

    @property
    def next(self) -> Rung | None:
        """The rung that comes next."""
        return self.rungs[self.climbed] if self.climbed < len(self.rungs) else None

    def to_json(self) -> dict[str, Any]:
        """As records and pages carry it."""
        return {
            "subject": self.subject.to_json(),
            "plan": self.plan,
            "basis": self.basis.value,
            "rungs": [rung.to_json() for rung in self.rungs],
            "t0": self.t0.to_json(),
            "t0_utc_ms": self.t0_utc_ms,
            "climbed": self.climbed,
            "paused": self.paused,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Climb:
        """Inverse of `to_json`. Raises KeyError or ValueError on anything else."""
        t0 = fields["t0"]
        return cls(
            subject=Subject.from_json(fields["subject"]),
            plan=fields["plan"],
            basis=Basis(fields["basis"]),
            rungs=tuple(Rung.from_json(rung) for rung in fields["rungs"]),
            t0=Instant(
                utc_ms=utc_from_text(t0["utc"]), mono_s=t0["mono"], boot=t0["boot"], clock=ClockState(t0["clock"])
            ),
            t0_utc_ms=int(fields["t0_utc_ms"]),
            climbed=int(fields["climbed"]),
            paused=fields["paused"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """The wall clock as far as it can be believed: never earlier than when the gateway was last alive, and going on.

    Attributes:
        base_utc_ms, base: what was believed when the process started, and when that was.
        behind: the machine's clock was earlier at start than when the gateway was last alive: downtime is unknowable.
    """

    base_utc_ms: int
    base: Instant
    behind: bool = False

    @classmethod
    def at_start(cls, last_alive: Instant | None, now: Instant) -> Wall:
        """What to believe from now on.

        Args:
            last_alive: as `alive` said in the process before; None at the very first start.
            now: the start.
        """
        if last_alive is None:
            return cls(base_utc_ms=now.utc_ms, base=now)
        if last_alive.boot == now.boot:
            believed_ms = last_alive.utc_ms + round((now.mono_s - last_alive.mono_s) * 1000)
            return cls(base_utc_ms=believed_ms, base=now)
        behind = now.utc_ms < last_alive.utc_ms
        return cls(base_utc_ms=max(now.utc_ms, last_alive.utc_ms), base=now, behind=behind)

    def believed_ms(self, now: Instant) -> int:
        """UTC milliseconds. A clock that is synchronized is believed whatever it said before."""
        if now.clock is ClockState.SYNCED:
            return now.utc_ms
        return max(now.utc_ms, self.base_utc_ms + round((now.mono_s - self.base.mono_s) * 1000))

    def alive(self, now: Instant) -> Instant:
        """What to save every few seconds for the next start."""
        return replace(now, utc_ms=self.believed_ms(now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A rung that is climbed now.

    Attributes:
        n: number of the rung, from 0.
        late_s: how long after its time, 0 when in time.
        early: climbed before its time, because downtime is unknowable.
    """

    n: int
    rung: Rung
    late_s: float = 0.0
    early: bool = False


def begin(subject: Subject, plan: Plan, now: Instant, wall: Wall) -> Climb:
    """A ladder that begins now. Rungs at 0 s are climbed by the record that begins it, which tells their people."""
    first = sum(rung.at_s <= 0 for rung in plan.rungs)
    return Climb(
        subject=subject,
        plan=plan.id,
        basis=plan.basis,
        rungs=plan.rungs,
        t0=now,
        t0_utc_ms=wall.believed_ms(now),
        climbed=first,
    )


def replan(climb: Climb, subject: Subject, plan: Plan) -> Climb:
    """The same ladder on other rungs, from the same first moment: the subject has become worse.

    Rungs at 0 s are climbed by the record that says so; what else the new plan has behind us is due at once.
    """
    first = sum(rung.at_s <= 0 for rung in plan.rungs)
    return replace(climb, subject=subject, plan=plan.id, basis=plan.basis, rungs=plan.rungs, climbed=first, paused="")


def elapsed_s(climb: Climb, now: Instant, wall: Wall) -> float:
    """Seconds since the first moment, downtime included."""
    if now.boot == climb.t0.boot:
        return now.mono_s - climb.t0.mono_s
    return max(now.mono_s, (wall.believed_ms(now) - climb.t0_utc_ms) / 1000)


def due(climb: Climb, now: Instant, wall: Wall) -> Iterator[Step]:
    """Every rung whose time has come, in order."""
    if climb.paused:
        return
    passed_s = elapsed_s(climb, now, wall)
    for n in range(climb.climbed, len(climb.rungs)):
        rung = climb.rungs[n]
        late_s = passed_s - rung.at_s
        if late_s < 0:
            return
        yield Step(n=n, rung=rung, late_s=round(late_s, 1) if late_s > LATE_S else 0.0)


def fail_early(climb: Climb, now: Instant, wall: Wall) -> Step | None:
    """The rung to climb at start when nobody knows how long the gateway was off; None when there is none that may be.

    What is due by any clock is not its matter.
    """
    rung = climb.next
    if not wall.behind or climb.paused or rung is None or rung.action is Action.FREEZE:
        return None
    if next(due(climb, now, wall), None) is not None:
        return None
    return Step(n=climb.climbed, rung=rung, early=True)


def climbed(climb: Climb, n: int) -> Climb:
    """After rung `n`. Raises ValueError when it is not the next: a rung is climbed once, and none is left out."""
    if n != climb.climbed:
        raise ValueError(f"{climb.subject.key}: rung {n} is not the next ({climb.climbed})")
    return replace(climb, climbed=n + 1)


def dated(climb: Climb, boot: str, mono_s: float, believed_ms: int) -> Climb:
    """After the wall clock jumped in `boot`: its first moment, now that `believed_ms` is believed at `mono_s`."""
    if climb.t0.boot != boot:
        return climb
    return replace(climb, t0_utc_ms=believed_ms - round((mono_s - climb.t0.mono_s) * 1000))
