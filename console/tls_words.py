"""What `sitewarden tls` says, in Chinese and English."""

from __future__ import annotations

from .language import Words

TLS: Words = {
    "tls_name": ("名称 {0}，地址 {1}", "name {0}, addresses {1}"),
    "tls_off": (
        "site.toml 没有启用 [https]（enabled = true）",
        "HTTPS is off: enabled = true in [https] of site.toml switches it on",
    ),
    "tls_ca.pem": ("本地 CA", "local CA"),
    "tls_leaf.pem": ("本地证书", "local leaf"),
    "tls_public.pem": ("公共证书链", "public chain"),
    "tls_missing": ("{0}：没有", "{0}: none"),
    "tls_cert": ("{0}：有效期至 {1}\n  SHA-256 {2}", "{0}: good until {1}\n  SHA-256 {2}"),
    "tls_nothing": ("还没有证书", "there is no certificate yet"),
    "tls_nothing_hint": ("运行 sitewarden tls make", "run: sitewarden tls make"),
    "tls_installed": (
        "{0} 的证书链已安装，有效期至 {1}；网关几秒内自动启用",
        "the chain for {0} is installed, good until {1}; the gateway takes it up within seconds",
    ),
    "tls_written": ("已写入 {0}", "written: {0}"),
}
