"""The demo: real servers, scripted meetings sent to them, kills in the worst moment, and the proof that all held."""


def run() -> int:
    """Play the demo on the terminal; return 0 if everything came out as it must, else 1."""
    import asyncio

    from whereby_trigger.cli.demo.play import play

    return asyncio.run(play())
