"""Programs that a test needs and that need not be installed."""

import pytest

from reliability.tools import ToolMissing, find


def skip_without(*names: str) -> None:
    """Skip a test if a program is missing, naming it and how to install it."""
    for name in names:
        try:
            find(name)
        except ToolMissing as missing:
            pytest.skip(str(missing))
