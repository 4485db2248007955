"""Texts as every store takes them. Pure."""


def fit_for_stores(text: str) -> str:
    """Put in place of what a store refuses what none does: U+FFFD for NUL, "?" for a lone surrogate."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
