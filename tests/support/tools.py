"""Programs that a test needs and that need not be installed."""

import pytest

from bench.tools import ToolMissing, find


def skip_without(*names: str) -> None:
    """Skip a test where a program is missing, by its name and with how it can be had."""
    for name in names:
        try:
            find(name)
        except ToolMissing as missing:
            pytest.skip(str(missing))
