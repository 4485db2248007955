"""Measure what the package promises: nothing acknowledged is lost, nothing is decided twice, nothing forged gets in."""
