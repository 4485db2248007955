"""Every exception this package raises on purpose.

There are two families: a `UsageError` is about your side (a setting, a call, the environment), a `DeliveryError` about
the sender's. Each message says what is wrong, why, and what to do.
"""


class TriggerError(Exception):
    """The base class of all errors of this package."""


class UsageError(TriggerError):
    """Something on our side is wrong; the message says what to change."""


class ConfigError(UsageError):
    """A setting is missing, malformed or contradicts another."""


class RegistrationError(UsageError):
    """A predicate, listener or assistant cannot be registered in this form."""


class AppError(UsageError):
    """The program given on the command line cannot be found or imported, or does not define exactly one Trigger."""


class LifecycleError(UsageError):
    """A trigger was started, mounted or stopped in a way that cannot work."""


class AddressError(UsageError):
    """The trigger cannot listen on the address: the port is in use, the host unknown, or permission is missing."""


class StoreError(UsageError):
    """The store cannot be opened or used."""


class StoreUnavailable(StoreError):
    """The store is unavailable now; the same call may succeed later."""


class StoreBusy(StoreUnavailable):
    """Another transaction has locked the row that this write would change; other writes succeed."""


class SpillInUse(StoreUnavailable):
    """Another process has the spill open."""


class AssistantError(UsageError):
    """An assistant cannot be run: its program is missing, or this platform cannot run it."""


class SystemExhausted(AssistantError):
    """The system has no threads, files or memory left to start an assistant; a later try may succeed."""


class AssistantRefused(TriggerError):
    """Raise this in an assistant that was refused entry to its room.

    `reason` is a short word for the record, such as Whereby's "room_empty"; `retry` says whether a restart makes sense.
    """

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.reason, self.retry = reason, retry


class DeliveryError(TriggerError):
    """A delivery is not what Whereby sends."""


class SignatureError(DeliveryError):
    """A delivery does not carry a valid signature.

    `skew` is the header's time minus ours in seconds, if only the signature's time was wrong; otherwise None.
    """

    def __init__(self, reason: str, *, skew: float | None = None) -> None:
        super().__init__(reason)
        self.skew = skew


class DecodeError(DeliveryError):
    """A body cannot be decoded as a webhook; the message says why and quotes none of the content."""
