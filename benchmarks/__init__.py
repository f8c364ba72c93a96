"""Measurements, each a ratio to something timed in the same run; never part of the tests."""
