"""The pytest plugin of whereby-trigger: the fixtures `whereby` and `trigger_testing`.

It lives outside the package, so that pytest does not import the package unless a test asks for a fixture.
"""

from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from whereby_trigger import Trigger
    from whereby_trigger.testing import TestingTrigger, Whereby


@pytest.fixture
def whereby() -> "Whereby":
    """Build what Whereby sends: `whereby.meeting("/visit-1")` and `whereby.webhook("room.client.joined")`."""
    from whereby_trigger.testing import Whereby

    return Whereby()


class TriggerTesting:
    """Return what `trigger.testing()` does, which works with anyio's plugin, pytest-asyncio and asyncio.run."""

    def __call__(self, trigger: "Trigger", *, assistants: Literal["list", "run"] = "list") -> "TestingTrigger":
        """Make a trigger deliverable to; no assistant starts unless `assistants` is "run"."""
        return trigger.testing(assistants=assistants)


@pytest.fixture
def trigger_testing() -> TriggerTesting:
    """Run a trigger in a test: `async with trigger_testing(trigger) as t: await t.deliver(...)`."""
    return TriggerTesting()
