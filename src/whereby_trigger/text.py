"""Make text that every store and every terminal accepts. Pure."""


def storable_text(text: str) -> str:
    """Return a text with what stores refuse replaced: NUL by U+FFFD, a lone surrogate by "?"."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def printable(text: str, keep: str = "") -> str:
    """Return a text with control, line-breaking and bidirectional characters escaped, but for those in `keep`.

    Anything from a payload (a room, an id, a type, a name) may hold them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
