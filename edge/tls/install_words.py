"""What the installation page says, in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping

NAMES: Mapping[str, tuple[str, str]] = {
    "android": ("安卓", "Android"),
    "iphone": ("iPhone / iPad", "iPhone / iPad"),
    "harmony": ("鸿蒙 HarmonyOS", "HarmonyOS"),
    "windows": ("Windows 电脑", "Windows"),
}
WORDS: Mapping[str, tuple[str, str]] = {
    "title": ("安装安全证书", "Install the certificate"),
    "other": ("English", "中文"),
    "why": (
        "装好后，手机和电脑可以安全地打开本网关的页面：拍照、离线记录、登录都需要它。每台设备只装一次。",
        (
            "With it, phones and computers open this gateway's pages safely: photos, offline work and sign-in need it."
            " Once for each device."
        ),
    ),
    "systems": ("您的设备", "Your device"),
    "download": ("① 下载证书", "① Download the certificate"),
    "qr": ("用手机扫码打开本页", "Scan to open this page on a phone"),
    "qr_alt": ("打开本页的二维码", "QR code that opens this page"),
    "check": ("② 核对指纹", "② Compare the fingerprint"),
    "compare": (
        "安装前核对：手机上显示的 SHA-256 指纹，必须与网关旁张贴的纸质指纹完全一致。不一致就不要安装，马上告诉信息员。",
        (
            "Before you install: the SHA-256 fingerprint on the phone must be that on the sheet posted at the gateway."
            " If it differs, do not install; tell IT."
        ),
    ),
    "until": ("有效期至", "Good until"),
    "limits": (
        "此证书只对本网关的名称和地址有效，不能用于任何其他网站。",
        "It is good for this gateway's name and addresses alone, and for no other site.",
    ),
    "then": ("③ 打开页面", "③ Open the pages"),
    "open": ("安装后点这里，不应再有警告：", "Then open this; there is no warning any more:"),
    "no_ca": (
        "网关还没有证书：多半是时钟没有校准。请联系信息员。",
        "The gateway has no certificate yet, most likely because its clock is not set. Tell IT.",
    ),
}
STEPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "android": (
        (
            "用系统浏览器或 Chrome 打开本页，不要在微信里打开。",
            "设置 → 安全 → 更多安全设置（或“加密与凭据”）→ 安装证书 → CA 证书。",
            "看到警告时选“仍然安装”，再选下载的 sitewarden-ca.crt。",
        ),
        (
            "Open this page in Chrome or the system's browser, not in WeChat.",
            (
                "Settings → Security → More security settings (Encryption &amp; credentials) → Install a certificate →"
                " CA certificate."
            ),
            "Choose “Install anyway”, then the downloaded sitewarden-ca.crt.",
        ),
    ),
    "iphone": (
        (
            "用 Safari 打开本页，点“下载证书”，允许下载描述文件。",
            "设置 → 通用 → VPN与设备管理 → 已下载的描述文件 → 安装。",
            "设置 → 通用 → 关于本机 → 证书信任设置 → 打开 Sitewarden 的开关。少了这一步不起作用。",
        ),
        (
            "Open this page in Safari, download, and allow the profile.",
            "Settings → General → VPN &amp; Device Management → the downloaded profile → Install.",
            (
                "Settings → General → About → Certificate Trust Settings → switch Sitewarden on."
                " Without this it does not work."
            ),
        ),
    ),
    "harmony": (
        (
            "用华为浏览器打开本页，不要在微信里打开。",
            "设置 → 隐私和安全（或“安全”）→ 高级 → 证书与凭据 → 从存储设备安装 → CA 证书。",
            "选下载的 sitewarden-ca.crt，确认安装。",
        ),
        (
            "Open this page in Huawei's browser, not in WeChat.",
            (
                "Settings → Privacy &amp; security → Advanced → Certificates &amp; credentials →"
                " Install from storage → CA certificate."
            ),
            "Choose the downloaded sitewarden-ca.crt and confirm.",
        ),
    ),
    "windows": (
        (
            "核对指纹：在命令提示符里运行 certutil -hashfile sitewarden-ca.crt SHA256。",
            "双击 sitewarden-ca.crt → 安装证书 → 当前用户。",
            "将所有的证书都放入下列存储 → 浏览 → 受信任的根证书颁发机构 → 完成，再重新打开浏览器。",
        ),
        (
            "Compare the fingerprint; in a command prompt: certutil -hashfile sitewarden-ca.crt SHA256",
            "Open sitewarden-ca.crt → Install Certificate → Current User.",
            "Place all certificates in the following store → Browse → Trusted Root Certification Authorities → Finish.",
        ),
    ),
}
