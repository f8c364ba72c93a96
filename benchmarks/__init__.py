"""Measurements, each beside a limit or a peer timed in the same run; never part of the tests. See __main__.py."""
