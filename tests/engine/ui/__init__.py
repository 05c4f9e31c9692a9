"""Tests of ``engine/ui``."""
