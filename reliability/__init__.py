"""Measure what the package promises: nothing acknowledged is lost, nothing is decided twice, nothing forged gets in."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""The folder of the repository, from which programs are started."""
