"""What the calculation of docs/scaling.md assumes of rooms; put your own figures here, and run it again."""

LIVE_ROOMS = (100, 1_000, 10_000, 100_000)
"""Rooms with people and an assistant in them at the same time."""

PER_SESSION = 15
"""Webhooks of a session: four people who come and go make 8, one more is the assistant, who makes 2, the session 2,
and knocking, recording and transcription 3.
"""

SESSIONS_PER_HOUR = 2
"""Sessions follow each other in a live room, half an hour each."""

PEAK = 3
"""At the full hour many begin together: the factor above the average."""

ROOMS_EACH = 200
"""Rooms of a replica (`max_rooms`): coroutines that wait for the network most of the time."""

FEWEST_REPLICAS = 2
RETENTION_DAYS = 7
CHANGES_PER_ASSISTANT = 5
"""Transactions of a room's life: it is asked for, taken, live, ending and ended."""


def per_second(live: int) -> float:
    """Calculate the webhooks per second of `live` live rooms, on average."""
    return live * PER_SESSION * SESSIONS_PER_HOUR / 3600


def assistants_per_second(live: int) -> float:
    """Calculate how many assistants start each second, on average."""
    return live * SESSIONS_PER_HOUR / 3600


def replicas(live: int) -> int:
    """Calculate how many replicas `live` live rooms need."""
    return max(FEWEST_REPLICAS, -(-live // ROOMS_EACH))
