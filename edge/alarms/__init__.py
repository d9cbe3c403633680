"""Alarms: pure rules, the pure state machine, and the engine that keeps them in step with the journal."""
