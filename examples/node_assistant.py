"""Run assistant.mjs in each room that a person joins, or to which a host invites an assistant.

    npm install @whereby.com/assistant-sdk
    export ASSISTANT_KEY=… WHEREBY_WEBHOOK_SECRET=…
    whereby-trigger start node_assistant.py

The assistant's environment has the key, but not the webhook's secret. In this project's tests a stub replaces Whereby's
SDK.
"""

from pathlib import Path

from whereby_trigger import Trigger, is_human

trigger = Trigger(webhook_triggers={"room.client.joined": is_human, "assistant.requested": lambda: True})
trigger.assistant_command(["node", str(Path(__file__).with_name("assistant.mjs"))])

if __name__ == "__main__":
    trigger.start()
