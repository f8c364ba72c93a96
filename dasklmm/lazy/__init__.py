"""Lazy maps of the numerics over chunks; no formula lives here."""
