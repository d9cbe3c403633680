"""Group robots of WeCom, DingTalk and Feishu: what is common is in `robot.py`, how messages look in `texts.py`.

Importing them loads no HTTP client: entering one does.
"""

from .dingtalk import DingtalkRobot, DingtalkSettings
from .feishu import FeishuRobot, FeishuSettings
from .robot import Robot, RobotSettings
from .wecom import Form, WecomRobot, WecomSettings

__all__ = [
    "DingtalkRobot",
    "DingtalkSettings",
    "FeishuRobot",
    "FeishuSettings",
    "Form",
    "Robot",
    "RobotSettings",
    "WecomRobot",
    "WecomSettings",
]
