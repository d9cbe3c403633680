"""Kinds of records by which a gateway itself says that something is missing or cannot be believed. One list for all.

What opens, restores, loses, drops or doubts anything leaves such a record; `sitewarden verify` lists them. A module
that adds a kind adds it here.
"""

from __future__ import annotations

from collections.abc import Mapping

DECLARED: Mapping[str, tuple[str, str]] = {
    "clock.stepped": ("时钟跳变", "the clock was stepped"),
    "clock.behind": ("时钟落后", "the clock was behind"),
    "history.damaged": ("历史数据损坏", "the history was damaged"),
    "history.dropped": ("历史数据被丢弃", "history was dropped"),
    "history.thinned": ("历史数据被抽稀", "history was thinned"),
    "journal.restored": ("留痕被恢复", "the journal was restored"),
    "journal.cloned": ("留痕被复制", "the journal was cloned"),
    "journal.epoch": ("新纪元开始", "a new epoch began"),
    "journal.gap": ("留痕缺口", "records were not written"),
    "evidence.evicted": ("证据已移出", "evidence was evicted"),
    "blob.lost": ("文件丢失", "a file was lost"),
}
"""Kind to what it means, in Chinese and English."""
