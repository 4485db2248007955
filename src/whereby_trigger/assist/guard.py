"""The guard: the parent of one assistant's process, which ends the process and its children if nobody else can.

It is run by its path and uses the standard library alone: it starts fast, and works even if the package is broken.

    python -I -S guard.py CONTROL SUPERVISOR DEADLINE NOTICE GRACE LIFE RUN PROGRAM [ARGUMENT ...]

Its environment, stdin, stdout and stderr are the assistant's. CONTROL is the descriptor of a stream socket whose other
end only the supervisor holds; SUPERVISOR is the supervisor's process id. DEADLINE is in seconds of the boot clock;
NOTICE is how many seconds before it the assistant gets TERM, and GRACE how many after the supervisor's end it has to
leave. The guard reads `deadline SECONDS` and `stop GRACE`, one a line. It writes `started PID` or `failed
ERRNO`; then `late` if it ends the assistant because the deadline is near; and `exited CODE` (minus the signal, if one
ended it). When it closes the socket, nothing of the assistant runs any more.

LIFE is the descriptor of the lock that shows the supervisor's replica alive, or -1. The guard holds that lock too: the
replica counts as dead only once its assistants are gone as well. The assistant does not inherit it, because a process
that it left behind would keep a dead replica alive. RUN is the name of this run. It marks the assistant's environment,
and processes that outlive their guard are found by that mark.

The assistant leads a session, and so a process group, of its own. The guard sends TERM, then KILL, to the whole group
if it is told to stop; if the supervisor is gone; if the supervisor is frozen, which shows as a deadline that nobody
extends; and if the assistant has exited but some of its children have not. On Linux the guard also finds processes that
left the group, since the kernel makes it the parent of every orphan below it.
"""

import errno
import os
import select
import signal
import sys
import time

STDIN = 0
SHORT_GRACE = 2.0
KILL_EARLIER = 0.2
# select's clock stands still while the machine is suspended; the deadline's does not.
LOOK_EVERY = 0.5
# At first; later as long as a share of the time that the end has taken so far: very many guards may wait together.
LOOK_EVERY_WHEN_ENDING = 0.02
SHARE = 0.25

FILES = "WHEREBY_TRIGGER_GUARD_FILES"
"""The variable with the assistant's limit of open files, if it differs from ours; the assistant does not see it."""

# As in `whereby_trigger.leftovers`.
MARK = "WHEREBY_ASSISTANT_RUN"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CHILDREN = f"/proc/self/task/{os.getpid()}/children"

# A terminal's Ctrl-C or a service manager's TERM is the supervisor's to answer.
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def prctl(option: int, value: int) -> bool:
    """Set an option of this process by Linux's prctl; return False if that fails for any reason."""
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)
    except Exception:
        return False


def lower_limits(files: str) -> None:
    """Restore the limit of open files that our own process started with, for the assistant."""
    if files:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), hard))


def mark(run: str) -> str:
    """Return `RUN:GUARD:NAMESPACE`: the run, the guard's process id, and the namespace of that id."""
    try:
        namespace = "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        namespace = ""
    return f"{run}:{os.getpid()}:{namespace}"


def launch(run: str, program: list[str]) -> int:
    """Start the assistant as the leader of its own session and return its process id; raises OSError."""
    failure, report = os.pipe()
    guard = os.getpid()
    os.putenv(MARK, mark(run))
    pid = os.fork()
    if pid == 0:
        become(program, guard, report)
    os.close(report)
    with os.fdopen(failure, "rb") as stream:
        number = stream.read()
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return pid


def become(program: list[str], guard: int, report: int) -> None:
    """Turn this fork into the assistant; an error number is written to `report`, which exec closes."""
    number = errno.EINVAL
    try:
        os.setsid()
        for ignored in signal.valid_signals():
            if signal.getsignal(ignored) is signal.SIG_IGN:
                signal.signal(ignored, signal.SIG_DFL)
        # The signal is sent when the thread that forked ends. The guard has one thread, so this is its own end.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:
            os.execvp(program[0], program)  # noqa: S606 - the user's program, as the user wrote it
    except OSError as error:
        number = error.errno or number
    finally:
        os.write(report, str(number).encode())
        os._exit(127)


class Family:
    """The assistant's process and all processes it started."""

    def __init__(self, leader: int, *, adopts: bool) -> None:
        self.code: int | None = None
        self._leader = leader
        self._adopts = adopts
        self._told: set[int] = set()

    def reap(self) -> bool:
        """Collect the processes that have ended; return True while any are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return not self._adopts and self._send(self._leader, 0)
            if pid == 0:
                return True
            if pid == self._leader:
                self.code = os.waitstatus_to_exitcode(status)

    def terminate(self) -> None:
        """Send TERM to each group that has not received it yet."""
        for group in self._groups() - self._told:
            self._told.add(group)
            self._send(group, signal.SIGTERM)

    def kill(self) -> None:
        for group in self._groups():
            self._send(group, signal.SIGKILL)

    def _groups(self) -> set[int]:
        if not self._adopts:
            return {self._leader}
        # The id of a group is not reused while a child in it has not been waited for.
        with open(CHILDREN, encoding="ascii") as children:
            return {os.getpgid(int(child)) for child in children.read().split()}

    def _send(self, group: int, number: int) -> bool:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Guard:
    """Watch over the assistant, the supervisor and the deadline."""

    def __init__(self, control: int, supervisor: int, deadline: float, notice: float, grace: float) -> None:
        self._control = control
        self._supervisor = supervisor
        self._earlier = min(KILL_EARLIER, notice / 2)
        self._deadline = deadline - self._earlier
        self._notice = min(grace, notice - self._earlier)
        self._grace = min(grace, SHORT_GRACE)
        self._kill_at: float | None = None
        self._ends_since = 0.0
        self._unparsed = b""
        self._connected = True

    @property
    def late(self) -> bool:
        """True if the assistant must not run, or not any longer."""
        return clock() >= self._deadline or os.getppid() != self._supervisor

    def tell(self, line: str) -> None:
        try:
            os.write(self._control, line.encode() + b"\n")
        except OSError:
            self._connected = False

    def hear(self) -> None:
        """Hear what the supervisor has said so far: while this process started, it may have moved the deadline."""
        while self._connected and self._control in select.select([self._control], [], [], 0)[0]:
            self._listen()

    def watch(self, family: Family, wake: int) -> None:
        """Return when nothing of the assistant is left."""
        told = False
        while True:
            left = family.reap()
            if family.code is not None and not told:
                self.tell(f"exited {family.code}")
                told = True
            if not left:
                return
            self._look(family)
            ready, _, _ = select.select([wake, *([self._control] if self._connected else [])], [], [], self._pause())
            if wake in ready:
                os.read(wake, 4096)
            if self._control in ready:
                self._listen()

    def _look(self, family: Family) -> None:
        now = clock()
        if not self._connected or os.getppid() != self._supervisor:
            self._end_by(now + self._grace)
        # Processes behind `sh` or `npm` that received a stop's TERM keep their grace after those have exited.
        if family.code is not None and self._kill_at is None:
            self._end_by(now + self._grace)
        if now >= self._deadline - self._notice:
            self._tell_late()
            self._end_by(self._deadline)
        if self._kill_at is None:
            return
        if now >= self._kill_at:
            family.kill()
        else:
            family.terminate()

    def _tell_late(self) -> None:
        if self._kill_at is None:
            self.tell("late")

    def _pause(self) -> float:
        now, end_at = clock(), self._deadline - self._notice
        if self._kill_at is None:
            return max(0.0, min(LOOK_EVERY, end_at - now))
        since = self._ends_since if now < self._kill_at else self._kill_at
        pause = min(LOOK_EVERY, max(LOOK_EVERY_WHEN_ENDING, SHARE * (now - since)))
        return min([pause, *(moment - now for moment in (self._kill_at, end_at) if moment > now)])

    def _end_by(self, moment: float) -> None:
        if self._kill_at is None:
            self._ends_since = clock()
        self._kill_at = moment if self._kill_at is None else min(self._kill_at, moment)

    def _listen(self) -> None:
        try:
            data = os.read(self._control, 4096)
        except OSError:
            data = b""
        self._connected = bool(data)
        *lines, self._unparsed = (self._unparsed + data).split(b"\n")
        for line in lines:
            word, _, seconds = line.partition(b" ")
            if word == b"deadline":
                self._deadline = float(seconds) - self._earlier
            elif word == b"stop":
                self._end_by(clock() + float(seconds))


def clock() -> float:
    """Return the boot clock's seconds, as `whereby_trigger.clock` does."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def wakes_when_a_child_ends() -> int:
    """Return a descriptor that becomes readable whenever a child ends."""
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    return wake


def main(arguments: list[str]) -> None:
    lower_limits(os.environ.pop(FILES, ""))  # noqa: TID251 - meant for the guard alone
    control, supervisor, deadline, notice, grace, life, run = arguments[:7]
    guard = Guard(int(control), int(supervisor), float(deadline), float(notice), float(grace))
    for descriptor in (int(control), int(life)):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    wake = wakes_when_a_child_ends()
    adopts = prctl(PR_SET_CHILD_SUBREAPER, 1) and os.path.exists(CHILDREN)
    guard.hear()
    if guard.late:
        guard.tell(f"failed {errno.ETIMEDOUT}")
        return
    try:
        leader = launch(run, arguments[7:])
    except OSError as error:
        guard.tell(f"failed {error.errno}")
        return
    os.close(STDIN)
    guard.tell(f"started {leader}")
    guard.watch(Family(leader, adopts=adopts), wake)


if __name__ == "__main__":
    main(sys.argv[1:])
