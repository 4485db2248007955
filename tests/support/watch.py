"""A shell that cleans up after a server if its starter ends without doing so."""

import subprocess
from pathlib import Path

WITHIN = 10.0
SCRIPT = r"""
trap "" INT TERM HUP
read _
if [ -d /proc/self ]; then
    children=$(grep -ls "^PPid:[[:space:]]*$0\$" /proc/[0-9]*/status | tr -dc "0-9\n")
else
    children=$(ps -A -o pid= -o ppid= | while read -r pid parent; do [ "$parent" = "$0" ] && echo "$pid"; done)
fi
kill -9 "$0" $children
rm -rf "$@"
"""


class Watch:
    """Kill a process with its children, and remove folders, once this process has ended; not after `end`."""

    def __init__(self, pid: int, *folders: Path) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", SCRIPT, str(pid), *map(str, folders)], stdin=subprocess.PIPE, start_new_session=True
        )

    def end(self) -> None:
        """Stop watching."""
        self._shell.kill()
        self._shell.communicate(timeout=WITHIN)
