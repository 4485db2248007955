"""What a row comes to."""

from msgspec import Struct

Figures = dict[str, int | float | str]
"""What was counted or measured, and the number."""


class Result(Struct, frozen=True):
    """Hold a row's figures by what they count, and its problems: none where the row passed."""

    figures: Figures
    problems: list[str]
