"""NORTH: what happened, what was measured, what was seen, and how it reaches the cloud exactly once."""
