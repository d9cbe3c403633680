"""The site plan: a picture, and where points, checkpoints, zones, fences and cameras lie on it (docs/plan.md)."""
