"""What a row comes to."""

from msgspec import Struct


class Result(Struct, frozen=True):
    """Hold a row's figures by what they count, and its problems: none where the row passed."""

    figures: dict[str, float | str]
    problems: list[str]
