"""From where a trigger can be reached, and whether anything tells there who is calling."""

from whereby_trigger.config import Settings, platform_expects_traffic
from whereby_trigger.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")

REMEDY = (
    "but there is no secret to tell who is calling: set WHEREBY_WEBHOOK_SECRET to the webhook's secret from Whereby's "
    "dashboard, or take whatever comes with allow_unsigned=True (--allow-unsigned)"
)


def check_reach(settings: Settings) -> None:
    """Raise ConfigError where other machines would be served, or expect to be, with nothing to tell who is calling."""
    if settings.signed or settings.allow_unsigned or settings.host in LOOPBACK:
        return
    if settings.host is not None:
        raise ConfigError(f"host {settings.host!r} would serve other machines, {REMEDY}")
    if platform_expects_traffic():
        raise ConfigError(f"PORT is set, so outside traffic is expected here, {REMEDY}")
