"""Benchmarks: the engine against the released recipe, in one process, doing the same work."""
