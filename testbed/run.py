"""The one door for processes. Argument lists only; a failure says what was run, where, and what it printed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from testbed.bound import sockets_bound_to
from testbed.errors import CommandError, UnsupportedError
from testbed.patience import stretched

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_FS = 0x20000000, 0x40000000, 0x00000200
ENVIRONMENT = {
    # The last folder is only in nodes: tools of an image that the machine may lack (testbed.compile.kube.commands).
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/testbed/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Open descriptors of a node's namespaces (namespaces(7)), and its name for messages.

    Args:
        device: of a VRF, to which a program's sockets of IP are bound; empty for none.
    """

    node: str
    net: int
    mnt: int
    uts: int
    ipc: int
    pid: int
    device: str = ""

    @classmethod
    def of(cls, node: str, process: Path) -> Namespaces:
        """Those of a process by its /proc directory, opened, all or none. Raises OSError when it has ended."""
        with contextlib.ExitStack() as opened:
            descriptors = []
            for kind in ("net", "mnt", "uts", "ipc", "pid"):
                descriptors.append(os.open(process / "ns" / kind, os.O_RDONLY | os.O_CLOEXEC))
                opened.callback(os.close, descriptors[-1])
            opened.pop_all()  # only where one cannot be opened are the others closed again
        net, mnt, uts, ipc, pid = descriptors
        return cls(node, net, mnt, uts, ipc, pid)

    def close(self) -> None:
        """Let go of them."""
        for descriptor in (self.net, self.mnt, self.uts, self.ipc, self.pid):
            os.close(descriptor)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _setns(descriptor: int, kind: int) -> None:
    _checked(_libc.setns(descriptor, kind), "setns")


def unshare(kinds: int) -> None:
    """Give the calling thread namespaces of its own (unshare(2))."""
    _checked(_libc.unshare(kinds), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2), in the calling thread's mount namespace."""
    words = [source.encode(), target.encode(), kind.encode() or None]
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None), f"mount {kind or source} on {target}")


@contextlib.contextmanager
def network_namespace(descriptor: int) -> Iterator[None]:
    """Put the calling thread (only it) into a network namespace for the length of the block.

    What is opened inside, a socket or a file below /proc/sys/net, stays in that namespace.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(descriptor, CLONE_NEWNET)
        try:
            yield
        finally:
            _setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def _enter(namespaces: Namespaces) -> None:
    """Put the calling thread into a node."""
    _setns(namespaces.pid, CLONE_NEWPID)
    _setns(namespaces.net, CLONE_NEWNET)
    _setns(namespaces.uts, CLONE_NEWUTS)
    _setns(namespaces.ipc, CLONE_NEWIPC)
    _setns(namespaces.mnt, CLONE_NEWNS)
    os.chdir("/")


def inside(namespaces: Namespaces, work: Callable[[], _Result]) -> _Result:
    """The result of `work`, run in a thread of its own that has entered the node; what it starts is in the node."""
    return _elsewhere(partial(_enter, namespaces), work)


def _elsewhere(enter: Callable[[], None], work: Callable[[], _Result]) -> _Result:
    """Run `work` in a thread of its own that has left ours by `enter`; what it starts is where the thread is."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            # A thread may change its mount namespace only when it shares its root directory with no other (setns(2)).
            unshare(CLONE_FS)
            enter()
            results.append(work())
        except BaseException as error:  # carried to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=enter_and_work, name="elsewhere")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _bound(namespaces: Namespaces | None) -> contextlib.AbstractContextManager[Callable[[], None] | None]:
    """What binds a program's sockets to the device of a VRF, where the node has one."""
    return sockets_bound_to(namespaces.device, namespaces.net) if namespaces else sockets_bound_to("")


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    namespaces: Namespaces | None = None,
    apart: Callable[[], None] | None = None,
    keep: Sequence[int] = (),
    timeout: float = 60.0,
) -> str:
    """Run a program to its end.

    Args:
        argv: the program and its arguments.
        stdin: text it reads.
        env: its whole environment; None for a minimal one.
        namespaces: the node it runs in; None for the host.
        apart: called before, in a thread that starts nothing but this program: what it unshares or mounts is for it.
        keep: descriptors that it inherits.
        timeout: seconds until it is killed.

    Returns:
        What it printed on standard output.

    Raises:
        CommandError: it ended with another status than 0, or took too long.
        UnsupportedError: the program is not installed.
    """

    def work(before_exec: Callable[[], None] | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - argument list, never a shell
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(ENVIRONMENT if env is None else env),
            timeout=stretched(timeout),
            check=False,
            preexec_fn=before_exec,
            pass_fds=keep,
        )

    where = namespaces.node if namespaces else ""
    try:
        enter = partial(_enter, namespaces) if namespaces else apart
        with _bound(namespaces) as before_exec:
            done = _elsewhere(enter, partial(work, before_exec)) if enter else work(before_exec)
    except FileNotFoundError:
        raise UnsupportedError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandError(argv, -9, f"took longer than {stretched(timeout):g} s", where) from None
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stdout + done.stderr, where)
    return done.stdout


@contextlib.contextmanager
def _leave_keys_to_the_program() -> Iterator[None]:
    """Ctrl-C and Ctrl-\\ go to every process of the terminal; the program decides what becomes of it, we wait for that.

    A handler that does nothing, because "ignored" would be inherited by the program (execve(2)).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def attach(argv: Sequence[str], namespaces: Namespaces | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run a program on the caller's own terminal and streams; returns its exit status (128 + n for a signal).

    Raises:
        UnsupportedError: the program is not installed.
    """
    terminal = {"TERM": os.environ.get("TERM", "dumb")}

    def work(before_exec: Callable[[], None] | None) -> int:
        environment = dict(ENVIRONMENT | terminal if env is None else env)
        with subprocess.Popen(list(argv), env=environment, preexec_fn=before_exec) as process:  # noqa: S603 - no shell
            return process.wait()

    try:
        with _leave_keys_to_the_program(), _bound(namespaces) as before_exec:
            status = inside(namespaces, partial(work, before_exec)) if namespaces else work(before_exec)
    except FileNotFoundError:
        raise UnsupportedError(f"{argv[0]} is not installed") from None
    return 128 - status if status < 0 else status


def start_detached(argv: Sequence[str]) -> None:
    """Start a program that outlives us, in a session of its own, and wait until its first process says it is ready.

    Raises:
        CommandError: it ended with another status than 0; the program puts itself into the background when ready.
    """
    done = subprocess.run(  # noqa: S603 - argument list, never a shell
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
        check=False,
        close_fds=True,
    )
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stderr)


# In front of a command line: whatever ends us, kill -9 too, ends the program and all that it has started (setpriv(1),
# unshare(1)): it is pid 1 of a pid namespace.
TIED = (
    *("/usr/bin/setpriv", "--pdeathsig", "KILL", "--"),
    *("/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)


class Beside:
    """A program that runs beside us. Args: process: what `beside` has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        # Read ends of what it prints, where that was asked for.
        self.output = process.stdout.fileno() if process.stdout else -1
        self.errors = process.stderr.fileno() if process.stderr else -1

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal that ended it); None while it runs."""
        return self._process.poll()


@contextlib.contextmanager
def beside(
    argv: Sequence[str], env: Mapping[str, str], *, log: Path | None = None, grace: float = 0.0
) -> Iterator[Beside]:
    """A program that runs for the length of the block; at its end it is asked to end, and killed after `grace` seconds.

    Args:
        env: its whole environment.
        log: the file its output goes to, with nothing to read for it; None: it reads what we read, and `output` and
            `errors` are to be read.

    Raises:
        UnsupportedError: the program is not installed.
    """
    with contextlib.ExitStack() as opened:
        stdin: int | None = None
        stdout = stderr = subprocess.PIPE
        if log:
            stdin, stdout = subprocess.DEVNULL, opened.enter_context(log.open("wb")).fileno()
            stderr = stdout
        try:
            process = opened.enter_context(
                subprocess.Popen(list(argv), env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr)  # noqa: S603 - argument list, never a shell
            )
        except FileNotFoundError:
            raise UnsupportedError(f"{argv[0]} is not installed") from None
        try:
            yield Beside(process)
        finally:
            _end(process, stretched(grace))


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    if grace and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    process.kill()


def on_terminal(argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int]:
    """Start a program on a new pseudo-terminal of so many rows and columns.

    Returns:
        Its process id, and the terminal's other end (pty(7)). A program that cannot be executed ends with 127.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            termios.tcsetwinsize(0, size)
            os.execvpe(argv[0], list(argv), dict(env))  # noqa: S606 - argument list, never a shell
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)
    return pid, terminal
