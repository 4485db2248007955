"""Let `python -m whereby_trigger.cli` be the command line, for the interpreter that is to run it."""

from whereby_trigger.cli import main

main()
