"""What you test your triggers with."""

from whereby_trigger.testing.builder import webhook
from whereby_trigger.webhook.signature import sign

__all__ = ["sign", "webhook"]
