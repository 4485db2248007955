"""The demo: a real server, a scripted meeting sent to it, a kill in the worst moment, and the proof that all held."""


def run() -> int:
    """Play the demo on the terminal; return 0 if everything came out as it must, else 1."""
    import asyncio

    from whereby_trigger.cli.demo.play import play

    return asyncio.run(play())
