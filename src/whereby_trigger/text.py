"""Texts as every store takes them, and as every terminal does. Pure."""


def storable_text(text: str) -> str:
    """Put in place of what a store refuses what none does: U+FFFD for NUL, "?" for a lone surrogate."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def printable(text: str, keep: str = "") -> str:
    """Return a text with the escape of each character that would steer a terminal, break a line or turn it around.

    What a payload holds, a room, an id, a type or a name, may hold any of them. Those in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
