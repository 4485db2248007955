"""The clock of leases, which a test may put forward or start anew, as if the machine had slept or been booted."""

from whereby_trigger.boot import boot_clock


class JumpingClock:
    """Read this machine's clock of leases, plus what it was put forward by; `standing`, it goes by that alone."""

    def __init__(self, *, standing: bool = False) -> None:
        self._standing = standing
        self._ahead = 0.0
        self._boots = 0

    def __call__(self) -> tuple[str, float]:
        boot, at = ("a boot", 1e6) if self._standing else boot_clock()
        return (f"{boot}+{self._boots}" if self._boots else boot), at + self._ahead

    def jump(self, seconds: float) -> None:
        """Put it forward."""
        self._ahead += seconds

    def reboot(self) -> None:
        """Have it be another start of the machine from now on, with less time since."""
        self._boots += 1
        self._ahead -= boot_clock()[1] / 2
