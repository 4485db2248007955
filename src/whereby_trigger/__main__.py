"""Run the command line by `python -m whereby_trigger`, with the interpreter of your choice."""

from whereby_trigger.cli import main

main()
