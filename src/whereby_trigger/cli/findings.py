"""What a look at one thing came to, before a program is started."""

from msgspec import Struct


class Finding(Struct, frozen=True):
    """Say about one thing that was looked at whether it is in order, in words; `warns` where it works, but is odd."""

    about: str
    ok: bool
    detail: str
    warns: bool = False

    @property
    def verdict(self) -> str:
        if not self.ok:
            return "problem"
        return "warning" if self.warns else "ok"
