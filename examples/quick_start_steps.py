"""The quick start in Python, step by step, with its one flag: right for one room, and no more than one.

ASSISTANT="node assistant.mjs" whereby-trigger dev quick_start_steps.py
"""

from assistant import join

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess

# Step 2: a trigger, and when it fires.
has_assistant = False

trigger = Trigger(webhook_triggers={"room.client.joined": lambda: not has_assistant}, port=3000)


# Step 4: what happens on a success. Register it before start(), which blocks.
@trigger.on(TRIGGER_EVENT_SUCCESS)
async def send_assistant(success: TriggerSuccess) -> None:
    global has_assistant
    # Set the flag before anything is awaited: the predicate sees the room's next webhook only after that.
    has_assistant = True
    try:
        await join(success.room_url)
    finally:
        # Step 5: the assistant has left, or could not join.
        has_assistant = False


# Step 3: serve, until SIGINT or SIGTERM.
if __name__ == "__main__":
    trigger.start()
