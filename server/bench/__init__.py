"""Measure how many cameras this machine holds: load, ceilings, and what they cost."""
