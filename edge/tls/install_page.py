"""The installation page and the printed sheet: HTML without scripts, Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cryptography import x509

from .authority import fingerprint
from .install_words import NAMES, STEPS, WORDS

SYSTEMS = ("android", "iphone", "harmony", "windows")
STYLE = Path(__file__).with_name("install.css").read_text("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page is about.

    Attributes:
        cert: the local CA; None while there is none.
        site: its name, in Chinese and in English.
        plain, secure: addresses of /install's door and of the pages, each ending with `/`.
    """

    cert: x509.Certificate | None
    site: tuple[str, str]
    plain: str
    secure: str


def language_of(asked: str, accepted: str) -> str:
    """`zh` or `en`: what was asked for, else the browser's first language; Chinese for all others but English."""
    if asked in ("zh", "en"):
        return asked
    return "en" if accepted.strip().lower().startswith("en") else "zh"


def system_of(asked: str, agent: str) -> str:
    """Of `SYSTEMS`; empty when nobody knows."""
    if asked in SYSTEMS:
        return asked
    lower = agent.lower()
    found = {"harmonyos": "harmony", "openharmony": "harmony", "iphone": "iphone", "ipad": "iphone"}
    found |= {"android": "android", "windows": "windows"}
    return next((system for word, system in found.items() if word in lower), "")


def render(shown: Shown, lang: str, chosen: str) -> str:
    """The page; the chosen system is open, or all that there are as choices."""
    words = {key: both[lang == "en"] for key, both in WORDS.items()}
    other = "en" if lang == "zh" else "zh"
    query = f"?lang={other}" + (f"&amp;os={chosen}" if chosen else "")
    parts = [
        (
            f"<header><div><small>Sitewarden</small><h1>{words['title']}</h1><p>{escape(_site(shown, lang))}</p></div>"
            f'<a class="lang" href="/install{query}" lang="{other}">{words["other"]}</a></header>'
        ),
        f'<p class="lead">{words["why"]}</p>',
    ]
    if shown.cert is None:
        parts.append(f'<p class="warn" role="status">{words["no_ca"]}</p>')
    else:
        parts += [_choices(lang, chosen), *(_system(one, lang, words, chosen) for one in SYSTEMS)]
        parts += [_check(shown.cert, words), _done(shown, words)]
    return _document("".join(parts), words["title"], lang, '<link rel="stylesheet" href="/install.css">')


def sheet(shown: Shown, qr_codes: Mapping[str, bytes], day: str) -> str:
    """One A4 page for the wall, both languages, that needs no network: styles and codes are within.

    Args:
        qr_codes: SVG by system.
        day: when it was made.
    """
    assert shown.cert is not None
    both = {key: f"{zh}<br><span lang=en>{en}</span>" for key, (zh, en) in WORDS.items()}
    cards = "".join(
        f"<section><h2>{escape(_both(*NAMES[one]))}</h2>{qr_codes[one].decode()}</section>" for one in SYSTEMS
    )
    head = f"<h1>{both['title']}</h1><p>{escape(_site(shown, 'zh'))} · {escape(_site(shown, 'en'))}</p>"
    tail = f"<p>{both['compare']}</p><pre>{_lines(fingerprint(shown.cert))}</pre>"
    ends = f"{shown.cert.not_valid_after_utc:%Y-%m-%d}"
    links = f"<p>{escape(shown.plain)}install<br>{escape(shown.secure)}</p><p><small>{day} → {ends}</small></p>"
    body = f'<div class="sheet">{head}<div class="codes">{cards}</div>{tail}{links}</div>'
    return _document(body, WORDS["title"][0], "zh", f"<style>{STYLE}</style>")


def _document(body: str, title: str, lang: str, style: str) -> str:
    code = "zh-CN" if lang == "zh" else "en"
    return (
        f'<!doctype html>\n<html lang="{code}"><head><meta charset="utf-8"><title>{title} · Sitewarden</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">{style}</head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _site(shown: Shown, lang: str) -> str:
    return shown.site[1] or shown.site[0] if lang == "en" else shown.site[0]


def _both(name: str, name_en: str) -> str:
    return name if name_en in name else f"{name} {name_en}"


def _choices(lang: str, chosen: str) -> str:
    links = "".join(
        f'<a href="/install?os={one}&amp;lang={lang}"{" aria-current=page" if one == chosen else ""}>'
        f"{escape(NAMES[one][lang == 'en'])}</a>"
        for one in SYSTEMS
    )
    return f'<nav aria-label="{WORDS["systems"][lang == "en"]}">{links}</nav>'


def _system(system: str, lang: str, words: Mapping[str, str], chosen: str) -> str:
    if chosen and chosen != system:
        return ""
    steps = "".join(f"<li>{step}</li>" for step in STEPS[system][lang == "en"])
    file = "/ca.mobileconfig" if system == "iphone" else "/ca.crt"
    return (
        f'<section class="system" id="{system}"><h2>{escape(NAMES[system][lang == "en"])}</h2><div class="two"><div>'
        f'<a class="get" href="{file}">{words["download"]}</a><ol>{steps}</ol></div>'
        f'<figure><img src="/install/{system}.svg" width="180" height="180" alt="{words["qr_alt"]}">'
        f"<figcaption>{words['qr']}</figcaption></figure></div></section>"
    )


def _check(cert: x509.Certificate, words: Mapping[str, str]) -> str:
    return (
        f"<section><h2>{words['check']}</h2><p>{words['compare']}</p><pre>{_lines(fingerprint(cert))}</pre>"
        f"<p>{words['until']} {cert.not_valid_after_utc:%Y-%m-%d}. {words['limits']}</p></section>"
    )


def _done(shown: Shown, words: Mapping[str, str]) -> str:
    address = escape(shown.secure)
    link = f'<a class="get" href="{address}">{address}</a>'
    return f"<section><h2>{words['then']}</h2><p>{words['open']}</p>{link}</section>"


def _lines(text: str) -> str:
    return "\n".join(text[start : start + 24].rstrip(":") for start in range(0, 96, 24))
