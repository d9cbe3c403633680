"""Escalation ladders and freezes, for any subject: an alarm, a hazard, an approval, a permit."""
