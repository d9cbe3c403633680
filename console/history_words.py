"""What `sitewarden history` says, in Chinese and English."""

from __future__ import annotations

from .language import Words

HISTORY: Words = {
    "no_parquet": (
        "写 Parquet 需要程序库 pyarrow，没有安装",
        "Parquet needs the library pyarrow, which is not installed",
    ),
    "no_parquet_hint": (
        "安装：pip install 'sitewarden[parquet]'；或用 --format csv",
        "pip install 'sitewarden[parquet]', or use --format csv",
    ),
    "parquet_out": (
        "Parquet 不能写到终端：请用 --out 指明文件",
        "Parquet is not for a terminal: name a file with --out",
    ),
    "history_no_names": ("{0}：没有名称和单位，时间为 UTC", "{0}: no names and units, times in UTC"),
    "history_no_point": ("没有测点 {0}", "there is no point {0}"),
    "history_written": ("{0}：{1} 行", "{0}: {1} rows"),
    "history_lost": (
        "{0} 个数据段读不出，缺少其中的读数",
        "{0} segments could not be read: their readings are missing",
    ),
    "not_a_bucket": (
        "--bucket 的值无效：{0} 不是整分钟的时长，例如 1m、15m、1h、1d",
        "--bucket: {0} is not a length of whole minutes, such as 1m, 15m, 1h or 1d",
    ),
}
