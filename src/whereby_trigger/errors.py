"""Every exception this package raises on purpose.

Two families: `UsageError` is yours (a setting, a call, the place it runs in), `DeliveryError` is the sender's.
The message of each says what is wrong, why, and what to do.
"""


class TriggerError(Exception):
    """The root of every error of this package."""


class UsageError(TriggerError):
    """Something on our side of the wire is wrong; the message says what to change."""


class ConfigError(UsageError):
    """A setting is missing, malformed or contradicts another."""


class RegistrationError(UsageError):
    """A predicate or listener cannot be registered as it was given."""


class AppError(UsageError):
    """The program that the command line was given cannot be found or imported, or does not have one Trigger."""


class LifecycleError(UsageError):
    """A trigger was started, mounted or stopped in a way that cannot work."""


class AddressError(UsageError):
    """The address to listen on cannot be had: a busy port, an unknown host, no permission."""


class StoreError(UsageError):
    """The store cannot be opened or used."""


class StoreUnavailable(StoreError):
    """The store did not take a write now; the same write may succeed later."""


class StoreBusy(StoreUnavailable):
    """Another transaction has locked what one write would change; the store takes other writes."""


class SpillInUse(StoreUnavailable):
    """Another process has the spill open."""


class AssistantError(UsageError):
    """An assistant cannot be run: its program is missing, or this platform cannot run it."""


class SystemExhausted(AssistantError):
    """The system has no thread, file or memory left to start an assistant; another try may find some."""


class AssistantRefused(TriggerError):
    """Raise it in an assistant that was not let into its room: `retry` says whether another try makes sense.

    `reason` is a short word for the record, such as Whereby's "room_empty".
    """

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.reason, self.retry = reason, retry


class DeliveryError(TriggerError):
    """A delivery is not what Whereby sends."""


class SignatureError(DeliveryError):
    """A delivery does not carry a valid signature.

    `skew` is the header's time minus ours in seconds, where only the time of a signature was wrong; else None.
    """

    def __init__(self, reason: str, *, skew: float | None = None) -> None:
        super().__init__(reason)
        self.skew = skew


class DecodeError(DeliveryError):
    """A body is no webhook that can be decoded; the message says why, in words without any of its content."""
