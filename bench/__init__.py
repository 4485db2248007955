"""Measure how fast the package is, side by side with what it replaces."""
