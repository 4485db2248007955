"""Tools that some rows need and not every machine has."""


class ToolMissing(Exception):
    """A program or library that a row needs is not installed; the message names it and how to install it."""
