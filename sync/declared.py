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
    "history.restored": ("历史数据被恢复或移动", "the history was put back or moved"),
    "history.thinned": ("历史数据被抽稀", "history was thinned"),
    "journal.restored": ("留痕被恢复", "the journal was restored"),
    "journal.cloned": ("留痕被复制", "the journal was cloned"),
    "journal.epoch": ("新纪元开始", "a new epoch began"),
    "sync.forked": ("总部另有不同的记录", "headquarters has other records"),
    "sync.cloud_lost": ("总部的数据曾被恢复到较早状态", "headquarters lost what it had"),
    "sync.gap": ("总部缺少且网关已不保存", "headquarters does not have it, and it is not kept any more"),
    "gateway.key_replaced": ("网关换了密钥，旧密钥未作证", "it has another key, which no older one introduced"),
    "sync.twin": ("另一台机器使用同一密钥", "another machine sends with the same key"),
    "journal.gap": ("留痕缺口", "records were not written"),
    "evidence.evicted": ("证据已移出", "evidence was evicted"),
    "blob.lost": ("文件丢失", "a file was lost"),
}
"""Kind to what it means, in Chinese and English."""
