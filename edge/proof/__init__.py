"""The proof test: a test value through the whole chain of an alarm, and what came of each step (docs/proof-test.md)."""
