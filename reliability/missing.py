"""What some rows need and not every machine has."""


class ToolMissing(Exception):
    """A program or library that a row is measured with is not installed; the message says which, and how to have it."""
