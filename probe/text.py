"""What the probe says: tables that keep their columns with Chinese in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..console.language import Say
from ..console.text import table
from ..console.words import reason_text
from ..sensors.buses import BusKind, BusSpec
from ..sensors.profile import Label
from ..sensors.registers import ONE_BY_ONE, Block, Register, compile_decoder
from .find import Candidate, FoundUnit, ScanResult, Setting, Value, shown
from .identify_words import reason_json, say_reason
from .interpret import LETTERS, Advice, Tally, Wide, is_plausible, texts_of, wides_of, words_of
from .plan import FULL_PCT, PlannedBus, PlannedRead, PlannedUnit, character_ms, quirks
from .run import Round
from .words import ALL

MANY_REPLIES = 100
OTHERS_REASONS = 4  # for a candidate that is not the best


def clock(seconds: float) -> str:
    """`0:42`, `12:05`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"


def place_of(spec: BusSpec) -> str:
    """The wire in words: `/dev/ttyUSB0 9600 8N1`, `192.168.1.10:502 tcp`."""
    if spec.kind is BusKind.RTU:
        return f"{spec.serial} {Setting(baud=spec.baud, parity=spec.parity, stopbits=spec.stopbits)}"
    return f"{spec.host}:{spec.port} {spec.kind}"


# --- plan ---


def plan_lines(bus: PlannedBus, tr: Say, profiles: Mapping[str, str], only: str | None = None) -> Iterator[str]:
    """The plan of one bus. `profiles`: device to the id of its profile; `only`: print this device alone."""
    spec = bus.spec
    yield f"{tr('bus')} {spec.id}{tr('colon')}{place_of(spec)}"
    for unit in bus.units:
        if only in (None, unit.unit.device):
            yield from _unit_lines(unit, tr, profiles)
    if spec.kind is BusKind.TCP:
        yield f"  {tr('tcp_load')}"
        return
    yield f"  {tr('load', f'{bus.load_pct:.1f}', f'{max(0.0, bus.room_ms):.0f}')}"
    if spec.kind is BusKind.RTU_TCP:
        yield f"  {tr('rtu_tcp_load', spec.baud)}"
    if bus.load_pct > FULL_PCT:
        yield f"  {tr('too_full', f'{FULL_PCT:g}')}"


def _unit_lines(planned: PlannedUnit, tr: Say, profiles: Mapping[str, str]) -> Iterator[str]:
    unit = planned.unit
    one_by_one = ("max_gap", ONE_BY_ONE)
    own = [tr("one_by_one") if quirk == one_by_one else f"{quirk[0]} {quirk[1]}" for quirk in quirks(unit)]
    profile = profiles.get(unit.device, "")
    what = [f"{tr('unit')} {unit.unit_id}", profile, tr("every", f"{unit.poll_s:g}"), *own]
    yield f"  {unit.device}{tr('colon')}{tr('comma').join(part for part in what if part)}"
    keys = ("request", "address", "count", "bytes", "wanted", "along", "wire", "registers")
    yield from table([[tr(key) for key in keys], *map(_read_row, planned.reads)], right="lrrrrrrl", indent=4)
    for output in unit.outputs:
        states = ", ".join(f"{name} = {raw}" for name, raw in output.states)
        colon = tr("colon")
        yield f"    {tr('output')} {output.name}{colon}{output.table} {output.address}{colon}{states}"
    if planned.wire_ms:
        yield f"    {tr('per_poll', f'{planned.wire_ms:.1f}', f'{planned.load_pct:.1f}')}"


def _read_row(read: PlannedRead) -> list[str]:
    block = read.block
    wire = f"{read.wire_ms:.1f}" if read.wire_ms else "–"
    counts = (str(block.count), str(block.reply_bytes), str(read.wanted), str(read.along))
    where = f"{block.address} 0x{block.address:04X}"
    return [f"FC{read.function:02d} {block.table}", where, *counts, wire, " ".join(read.names)]


def plan_json(bus: PlannedBus, only: str | None = None) -> dict[str, object]:
    """The same for a program."""
    return {
        "bus": bus.spec.id,
        "character_ms": None if bus.spec.kind is BusKind.TCP else round(character_ms(bus.spec), 4),
        "load_pct": None if bus.spec.kind is BusKind.TCP else round(bus.load_pct, 2),
        "devices": [
            {
                "device": unit.unit.device,
                "unit_id": unit.unit.unit_id,
                "poll_s": unit.unit.poll_s,
                "quirks": dict(quirks(unit.unit)),
                "wire_ms": round(unit.wire_ms, 2),
                "reads": [
                    {
                        "function": read.function,
                        "address": read.block.address,
                        "count": read.block.count,
                        "bytes": read.block.reply_bytes,
                        "registers": list(read.names),
                        "wanted": read.wanted,
                        "along": read.along,
                    }
                    for read in unit.reads
                ],
            }
            for unit in bus.units
            if only in (None, unit.unit.device)
        ],
    }


# --- scan ---


def unit_lines(unit: FoundUnit, tr: Say, *, most: int = 4) -> Iterator[str]:
    """One unit that was found: how it answers, what it may be and what it would measure now."""
    setting = [str(unit.setting)] if unit.setting else []
    times = [f"{tr('reply')} {unit.tally.at(0.5):.1f} ms"] if unit.tally.times_ms else []
    yield tr("comma").join((f"{tr('unit')} {unit.unit_id}", *setting, *times))
    if unit.device:
        yield f"  {tr('owned', unit.device)}"
    if not unit.candidates and unit.candidates is not None:
        yield f"  {tr('no_fit')}{tr('colon')}{tr('no_fit_hint')} --unit {unit.unit_id} --holding 0"
    for candidate in (unit.candidates or ())[:most]:
        yield from _candidate_lines(candidate, tr, is_best=candidate is unit.best)


def _candidate_lines(candidate: Candidate, tr: Say, *, is_best: bool) -> Iterator[str]:
    """The best one with all of its values and reasons, another with the weightiest."""
    profile = candidate.profile
    variant = f"{tr('open')}{tr('variant')} {candidate.variant}{tr('close')}" if candidate.variant else ""
    mark = "*" if is_best else " "
    yield f"  {mark} {candidate.score:3d} %  {profile.id}{variant}  {profile.name} / {profile.name_en}"
    if not is_best:
        yield "           " + tr("comma").join(shown(value, tr) for value in candidate.values)
    else:
        yield from table([_value_cells(value, tr) for value in candidate.values], right="llr", indent=11)
    telling = [reason for reason in candidate.reasons if reason.is_telling]  # plausible values stand above
    for reason in telling if is_best else telling[:OTHERS_REASONS]:
        yield f"           {say_reason(reason, tr)}"
    if not is_best:
        return
    if f"evidence_{profile.evidence}" in ALL:
        yield f"           {tr(f'evidence_{profile.evidence}')}"
    if profile.incomplete:
        yield f"           {tr('incomplete')}{tr('colon')}{profile.incomplete}"


def hello_text(hello: str, tr: Say) -> str:
    """How a unit answered the first request: a word, or the name of its refusal."""
    return reason_text(hello, tr, ALL) if hello.startswith("exception_") else hello


def _value_cells(value: Value, tr: Say) -> list[str]:
    number = (
        f"({reason_text(value.why, tr, ALL)})" if value.value is None else f"{value.value:.{value.label.decimals}f}"
    )
    return [value.label.name_zh, value.label.name_en, number, value.label.unit if value.value is not None else ""]


def scan_json(result: ScanResult, advice: Advice | None, snippet: str) -> dict[str, object]:
    """The same for a program."""
    return {
        "ended": result.ended,
        "one_device_for_all": result.answers_all,
        "units": [_unit_json(unit) for unit in result.units],
        "garbled": [{"unit_id": unit_id, "line": str(setting or "")} for unit_id, setting in result.garbled],
        "advice": advice_json(advice),
        "snippet": snippet,
    }


def _unit_json(unit: FoundUnit) -> dict[str, object]:
    return {
        "unit_id": unit.unit_id,
        "line": None if unit.setting is None else str(unit.setting),
        "hello": unit.hello,
        "device": unit.device or None,
        "profile": unit.best.profile.id if unit.best else None,
        "replies": tally_json(unit.tally),
        "candidates": [
            {
                "profile": c.profile.id,
                "variant": c.variant or None,
                "score": c.score,
                "reasons": [reason_json(reason) for reason in c.reasons],
                "values": [
                    {"name": v.label.name, "value": v.value, "unit": v.label.unit, "why": v.why} for v in c.values
                ],
            }
            for c in unit.candidates or ()
        ],
    }


# --- read ---


def bit_lines(block: Block, bits: Sequence[int], tr: Say) -> Iterator[str]:
    """Coils or discrete inputs."""
    rows = [[tr("address"), "", ""]]
    rows += [[str(block.address + i), f"0x{block.address + i:04X}", str(bit)] for i, bit in enumerate(bits)]
    return table(rows, right="rrr")


def word_lines(block: Block, raws: Sequence[int], tr: Say, dim: Callable[[str], str]) -> Iterator[str]:
    """Registers in every interpretation, side by side. `dim` marks what is not likely meant."""
    head = [tr("address"), "", "hex", "u16", "i16", "÷10", "÷100", "÷1000", "10000+", "BCD", "hi", "lo"]
    rows = [[*head, tr("nibbles"), tr("bits_set")]]
    for word in words_of(block.address, raws):
        signed = [f"{word.signed / 10:.1f}", f"{word.signed / 100:.2f}", f"{word.signed / 1000:.3f}"]
        rows.append(
            [
                str(word.address),
                f"0x{word.address:04X}",
                f"{word.raw:04X}",
                str(word.raw),
                str(word.signed),
                *signed,
                str(word.above_10000),
                "–" if word.bcd is None else str(word.bcd),
                str(word.high),
                str(word.low),
                " ".join(map(str, word.nibbles)),
                " ".join(map(str, word.bits)) or "–",
            ]
        )
    yield from table(rows, right="rrrrrrrrrrrrll")
    for words in (2, 4):
        yield from _wide_lines(list(wides_of(block.address, raws, words)), tr, dim)
    high, low = texts_of(raws)
    yield f"  {tr('text_high')}{tr('colon')}{high}"
    yield f"  {tr('text_low')}{tr('colon')}{low}"


def _wide_lines(wides: Sequence[Wide], tr: Say, dim: Callable[[str], str]) -> Iterator[str]:
    if not wides:
        return
    size = 16 * wides[0].words
    yield ""
    rows = [[tr("address"), tr("order"), "", f"f{size}", f"u{size}", f"i{size}"]]
    for wide in wides:
        letters = LETTERS[wide.order] if wide.words == 2 else ""
        address = f"{wide.address}–{wide.address + wide.words - 1}"
        integers = (_marked(str(n), is_plausible(n)) for n in (wide.unsigned, wide.signed))
        rows.append([address, wide.order, letters, _marked(_float(wide), wide.plausible), *integers])
    for at, line in enumerate(table(rows, right="rllrrr")):
        yield line if at == 0 or _any_plausible(wides[at - 1]) else dim(line)
    yield f"  {tr('odd')}"


def _any_plausible(wide: Wide) -> bool:
    return wide.plausible or is_plausible(wide.unsigned) or is_plausible(wide.signed)


def _marked(text: str, plausible: bool) -> str:
    return f"{text} " if plausible else f"{text}?"


def _float(wide: Wide) -> str:
    return f"{wide.floating:.7g}" if wide.words == 2 else f"{wide.floating:.10g}"


def words_json(block: Block, raws: Sequence[int]) -> dict[str, object]:
    """Every interpretation for a program; NaN and infinity are null."""
    return {
        "words": [
            {
                "address": w.address,
                "u16": w.raw,
                "i16": w.signed,
                "above_10000": w.above_10000,
                "bcd": w.bcd,
                "bytes": [w.high, w.low],
                "nibbles": list(w.nibbles),
                "bits": list(w.bits),
            }
            for w in words_of(block.address, raws)
        ],
        "wide": [
            {
                "address": w.address,
                "words": w.words,
                "word_order": w.order,
                "unsigned": w.unsigned,
                "signed": w.signed,
                "float": w.floating if abs(w.floating) < float("inf") else None,
                "plausible": w.plausible,
            }
            for size in (2, 4)
            for w in wides_of(block.address, raws, size)
        ],
        "text": list(texts_of(raws)),
    }


# --- watch ---


def tally_line(tally: Tally, tr: Say) -> str:
    """Reply times and errors: `reply 0.5 ms (p50 0.5, p95 3.4, max 6.5), errors 0.0 %`."""
    times, (opened, closed) = "–", (tr("open"), tr("close"))
    if tally.times_ms:
        shares = f"p50 {tally.at(0.5):.1f}, p95 {tally.at(0.95):.1f}, max {tally.max_ms:.1f}"
        times = f"{tally.times_ms[-1]:.1f} ms{opened}{shares}{closed}"
    reasons = tr("comma").join(f"{reason_text(why, tr, ALL)} × {n}" for why, n in sorted(tally.failures.items()))
    failed = f"{tr('errors')} {tally.error_pct:.1f} %" + (f"{opened}{reasons}{closed}" if reasons else "")
    return f"{tr('reply')} {times}{tr('comma')}{failed}"


def summary_lines(tally: Tally, advice: Advice | None, waited_ms: int, tr: Say, *, is_rtu: bool) -> Iterator[str]:
    """The end of a watch: all counted, and what site.toml should say. Lateness matters on RTU alone."""
    yield f"{tr('asked')} {tally.asked}{tr('comma')}{tally_line(tally, tr)}"
    if advice is None:
        for why, _ in tally.failures.most_common(1):
            if f"hint_{why}" in ALL:
                yield tr(f"hint_{why}")
        return
    late = f", late_max_ms = {advice.late_max_ms}" if is_rtu and advice.late_max_ms is not None else ""
    yield f"{tr('advice')}{tr('colon')}timeout_ms = {advice.timeout_ms}{late}"
    if is_rtu and advice.late_max_ms is None:
        yield tr("no_late")
    if len(tally.times_ms) < MANY_REPLIES:
        yield tr("few", len(tally.times_ms))
    if late and tally.failures["timeout"]:
        yield tr("no_reply_long", tally.failures["timeout"], f"{waited_ms / 1000:g}")


def round_text(one: Round, blocks: Sequence[Block], labels: Mapping[str, Label], tr: Say) -> str:
    """The values of one look: by name when the registers are known, else raw words."""
    parts: list[str] = []
    for block, answer in zip(blocks, one.answers, strict=True):
        if isinstance(answer, str):
            parts.append(f"({reason_text(answer, tr, ALL)})")
        elif not block.registers:
            parts.append(" ".join(map(str, answer)))
        for register, (value, why) in _decoded(block, answer):
            label = labels.get(register.name)
            if label is None:
                parts.append(f"{register.name}: {reason_text(why, tr, ALL) if value is None else f'{value:.7g}'}")
                continue
            name = label.name_zh if tr("lang") == "zh" else label.name_en
            shown_as = f"{value:.{label.decimals}f} {label.unit}".rstrip() if value is not None else ""
            parts.append(f"{name} {shown_as or reason_text(why, tr, ALL)}")
    return "  ".join([f"{one.number}:", *parts])


def _decoded(block: Block, answer: tuple[int, ...] | str) -> Iterator[tuple[Register, tuple[float | None, str]]]:
    if isinstance(answer, str):
        return
    for register in block.registers:
        value, _, why = compile_decoder(register, block.address)(answer)
        yield register, (value, why)


def round_json(one: Round, blocks: Sequence[Block]) -> dict[str, object]:
    """The same for a program."""
    return {
        "number": one.number,
        "blocks": [
            {
                "table": block.table,
                "address": block.address,
                "words": None if isinstance(answer, str) else list(answer),
                "why": answer if isinstance(answer, str) else "",
                "values": {r.name: value for r, (value, _) in _decoded(block, answer)},
            }
            for block, answer in zip(blocks, one.answers, strict=True)
        ],
    }


def tally_json(tally: Tally) -> dict[str, object]:
    return {
        "asked": tally.asked,
        "error_pct": round(tally.error_pct, 2),
        "failures": dict(tally.failures),
        "p50_ms": round(tally.at(0.5), 2),
        "p95_ms": round(tally.at(0.95), 2),
        "max_ms": round(tally.max_ms, 2),
    }


def advice_json(advice: Advice | None) -> dict[str, int | None] | None:
    return None if advice is None else {"timeout_ms": advice.timeout_ms, "late_max_ms": advice.late_max_ms}
