"""The lab's pid 1: makes nodes out of namespaces, runs programs in them, and tells what became of them.

A program of its own (standard library only, no import of this package). The netns runtime starts it once per lab as
``python -I -S supervisor.py NAME STATE_DIRECTORY``; its processes carry that command line, so a lab is found in /proc
whatever else was lost. It is pid 1 of the lab's pid namespace, and every node has a holder that is pid 1 of a pid
namespace inside it: when a holder ends, the kernel ends the node; when the supervisor ends, the kernel ends the lab
(pid_namespaces(7)). With ``--container`` it is pid 1 of a container that is one node, and holds the pods in it.

It speaks JSON lines over the Unix socket STATE_DIRECTORY/supervisor.sock, one request and one answer at a time per
connection; namespaces travel as file descriptors (SCM_RIGHTS). Requests: see `HANDLERS`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pwd
import select
import selectors
import signal
import socket
import stat
import struct
import sys
import termios
import time
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_NAME = 15

NAMESPACES = ("net", "mnt", "uts", "ipc")
# Not shared with a node: what a host keeps there is no business of the lab's, and what a node writes there is its own.
# (In /root lie the host's keys, and a .bashrc that every command by ssh would run.)
PRIVATE = ("/run", "/root", "/tmp", "/var/tmp", "/var/log", "/var/lib", "/dev/shm")
MODES = {"/root": "700", "/tmp": "1777", "/var/tmp": "1777", "/dev/shm": "1777"}
# File systems that a node gets anew, or that hold nothing a node may see.
PSEUDO = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib", "/boot")
# Linux Documentation/admin-guide/devices.txt
DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
    "net/tun": (10, 200),
}  # fmt: skip
DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}  # fmt: skip
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
HOLDER, NAMESPACES_READY = "holder", "namespaces"  # what is said while a node is made
LOGS = "/var/log/testbed"

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    checked(libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    checked(libc.setns(descriptor, flags), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    checked(result, f"mount {kind or source} on {target}")


# --- a node's own view of the machine -------------------------------------------------------------------------------


def other_mounts() -> list[str]:
    """Mount points of the host below /, apart from the pseudo file systems: a node sees them read-only."""
    with open("/proc/self/mountinfo") as table:
        points = [line.split()[4].encode().decode("unicode_escape") for line in table]

    def hidden(point: str) -> bool:
        return point == "/" or any(point == place or point.startswith(place + "/") for place in PSEUDO)

    return sorted({point for point in points if not hidden(point)})


def make_root(hostname: str) -> None:
    """Replace this mount namespace's root by a private, writable overlay over the host's, which stays untouched."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    below = other_mounts()
    mount("testbed", "/tmp", "tmpfs", data="mode=755")
    for name in ("upper", "work", "root"):
        os.mkdir(f"/tmp/{name}")
    mount("testbed", "/tmp/root", "overlay", data="lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work")
    root = "/tmp/root"
    for point in below:
        if os.path.isdir(root + point):
            with contextlib.suppress(OSError):  # some refuse even root (FUSE): such a place stays empty
                mount(point, root + point, flags=MS_BIND)
                mount("none", root + point, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    make_devices(root + "/dev")
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root + "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    protect_sysctls(root)
    for path in PRIVATE:
        if os.path.isdir(root + path):
            mount("testbed", root + path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={MODES.get(path, '755')}")
    os.chdir(root)
    checked(libc.pivot_root(b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    os.makedirs("/run/netns")
    os.makedirs(LOGS)
    os.makedirs("/run/lock")
    libc.sethostname(hostname.encode(), len(hostname.encode()))


def make_devices(place: str) -> None:
    """A /dev as a container's: the devices every program counts on, and none of the machine's own."""
    mount("testbed", place, "tmpfs", MS_NOSUID, "mode=755")
    for name, (major, minor) in DEVICES.items():
        os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
        os.mknod(f"{place}/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(f"{place}/{name}", 0o666)
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{place}/{name}")
    os.mkdir(f"{place}/pts")
    mount("devpts", f"{place}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    os.mkdir(f"{place}/shm")


def protect_sysctls(root: str) -> None:
    """Only net/ of /proc/sys belongs to a namespace; the rest is the host's and is read-only, as in a container."""
    mount(f"{root}/proc/sys", f"{root}/proc/sys", flags=MS_BIND)
    mount(f"{root}/proc/sys/net", f"{root}/proc/sys/net", flags=MS_BIND)
    mount("none", f"{root}/proc/sys", flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def open_network_sysctls() -> None:
    """Make /proc/sys/net writable in a container, where all of /proc/sys is read-only; see protect_sysctls."""
    mount("/proc/sys/net", "/proc/sys/net", flags=MS_BIND)
    mount("none", "/proc/sys/net", flags=MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def let_go_of_others() -> None:
    """Unmount, for the lab alone, what others on this machine mount for a while and want to be gone once they unmount.

    A mount namespace starts as a copy, and a mount that it keeps keeps what is mounted alive: a container's network
    namespace with its links, its file system.
    """
    with open("/proc/self/mountinfo") as table:
        entries = [line.split(" - ") for line in table]
    for place, what in reversed(entries):
        point = place.split()[4].encode().decode("unicode_escape")
        if what.startswith("nsfs ") or (what.startswith("overlay ") and point != "/"):
            libc.umount2(point.encode(), MNT_DETACH)


def write_files(directories: list[list[str]], files: list[dict[str, Any]]) -> None:
    """Make directories, then put each file in place by rename, so that no program ever reads half of one."""
    for path, owner in directories:
        os.makedirs(path, exist_ok=True)
        give(path, owner)
    for file in files:
        os.makedirs(os.path.dirname(file["path"]), exist_ok=True)
        temporary = file["path"] + ".testbed"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(file["content"])
            os.fchmod(stream.fileno(), file["mode"])
        give(temporary, file["owner"])
        try:
            os.rename(temporary, file["path"])
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            overwrite(temporary, file["path"])


def overwrite(source: str, target: str) -> None:
    """Write into a file that cannot be replaced: container engines mount some of /etc file by file."""
    with open(source) as content, open(target, "w") as stream:
        stream.write(content.read())
    os.unlink(source)


def give(path: str, owner: str) -> None:
    if owner != "root":
        entry = pwd.getpwnam(owner)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def make_vrfs(names: list[str]) -> list[int]:
    """A network namespace per VRF, under the name by which FRR's `zebra -n` and `ip netns` find it."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    descriptors = []
    for name in names:
        unshare(CLONE_NEWNET)
        with open(f"/run/netns/{name}", "x"):
            pass
        mount("/proc/self/ns/net", f"/run/netns/{name}", flags=MS_BIND)
        descriptors.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        raise_loopback()
        setns(own, CLONE_NEWNET)
    os.close(own)
    return descriptors


def end_vrfs(names: list[str]) -> None:
    """Take away what `make_vrfs` made. The kernel ends a namespace when the last who knows it lets go of it."""
    for name in names:
        checked(libc.umount2(f"/run/netns/{name}".encode(), MNT_DETACH), "umount")
        os.unlink(f"/run/netns/{name}")


def raise_loopback() -> None:
    """Set lo up in the current network namespace (netdevice(7): SIOCSIFFLAGS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))


def hold() -> None:
    """Be pid 1 of a node: reap whatever is orphaned, end when told."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def close_all_but(kept: int) -> None:
    """Close all descriptors but the standard streams and one: another node's namespaces would live on by them."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def start_holder(request: dict[str, Any], channel: socket.socket) -> None:
    """In the process between: start the holder, hand its pidfd to the supervisor, end."""
    close_all_but(channel.fileno())
    unshare(CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        become_node(request, channel)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(channel, [HOLDER.encode()], [pidfd])
    os._exit(0)


def become_node(request: dict[str, Any], channel: socket.socket) -> None:
    """In the new holder: make the node, hand its namespaces to the supervisor, hold it."""
    try:
        os.setsid()
        unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
        make_root(request["hostname"])
        raise_loopback()
        descriptors = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in (*NAMESPACES, "pid")]
        descriptors += make_vrfs(request["vrfs"])
        write_files(request["directories"], request["files"])
        socket.send_fds(channel, [NAMESPACES_READY.encode()], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    except BaseException as error:  # the supervisor must hear of it, whatever it is
        channel.send(f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    channel.close()
    hold()


# --- the supervisor ---------------------------------------------------------------------------------------------------


class Process:
    """A program that was started in a node."""

    def __init__(self, name: str, argv: list[str], pid: int) -> None:
        self.name, self.argv, self.pid = name, argv, pid
        self.host_pid = host_pid(pid)
        self.started = time.time()
        self.status: int | None = None
        self.ended: float | None = None

    def describe(self) -> dict[str, Any]:
        return {
            "argv": self.argv,
            "pid": self.host_pid,
            "started": self.started,
            "status": self.status,
            "ended": self.ended,
        }


class Node:
    """A node, held by the process behind `holder` (a pidfd)."""

    def __init__(self, name: str, parent: str, holder: int, descriptors: list[int], vrfs: list[str]) -> None:
        self.name, self.parent, self.holder, self.host_pid = name, parent, holder, pid_behind(holder)
        self.descriptors = dict(zip((*NAMESPACES, "pid"), descriptors[:5], strict=True))
        self.vrfs = dict(zip(vrfs, descriptors[5:], strict=True))
        self.processes: dict[str, Process] = {}

    def close(self) -> None:
        for descriptor in (*self.descriptors.values(), *self.vrfs.values(), self.holder):
            os.close(descriptor)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.holder, signal.SIGKILL)


def host_pid(pid: int) -> int:
    """A child's process id as the host sees it."""
    descriptor = os.pidfd_open(pid)
    try:
        return pid_behind(descriptor)
    finally:
        os.close(descriptor)


def pid_behind(pidfd: int) -> int:
    """/proc here is the host's, and fdinfo speaks its numbers (proc(5))."""
    with open(f"/proc/self/fdinfo/{pidfd}") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))


class Supervisor:
    def __init__(self, state: str) -> None:
        self.nodes: dict[str, Node] = {}
        self.dead_nodes: dict[str, str] = {}
        self.own_pid_namespace = os.open("/proc/thread-self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        self.selector = selectors.DefaultSelector()
        self.subscribers: list[socket.socket] = []
        path = f"{state}/supervisor.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path + ".new")
        os.chmod(path + ".new", 0o600)
        listener.listen(64)
        os.rename(path + ".new", path)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.listener = listener
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(wake_read, selectors.EVENT_READ, self.reap)
        self.wake_read = wake_read

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)

    def accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self.selector.register(connection, selectors.EVENT_READ, self.answer)

    def forget(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        if connection in self.subscribers:
            self.subscribers.remove(connection)
        connection.close()

    def answer(self, connection: socket.socket) -> None:
        """Read one request (a length, then JSON; descriptors with its first bytes), carry it out, answer it."""
        try:
            head, received = receive_with_descriptors(connection, 4)
            if len(head) < 4:
                self.forget(connection)
                return
            request = json.loads(receive_exactly(connection, struct.unpack("!I", head)[0]))
        except (OSError, ValueError):
            self.forget(connection)
            return
        descriptors: list[int] = []
        try:
            result, descriptors = HANDLERS[request["op"]](self, request, received)
        except Exception as error:  # the one who asked must hear of it; the lab goes on
            result = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for descriptor in received:
                os.close(descriptor)
        try:
            send(connection, result, descriptors)
        except OSError:
            self.forget(connection)
            return
        if request["op"] == "subscribe":
            self.subscribers.append(connection)

    def reap(self, wake_read: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_read, 4096)
        self.reap_all()

    def reap_all(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.ended(pid, os.waitstatus_to_exitcode(status))

    def ended(self, pid: int, status: int) -> None:
        for node in self.nodes.values():
            for process in node.processes.values():
                if process.pid == pid and process.status is None:
                    process.status, process.ended = status, time.time()
                    self.publish({"event": "exit", "node": node.name, "process": process.name, "status": status})
                    return

    def holder_ended(self, pidfd: int) -> None:
        node = next(node for node in self.nodes.values() if node.holder == pidfd)
        self.reap_all()
        self.bury(node)

    def bury(self, node: Node) -> None:
        """Its holder is gone, so the kernel has ended every process of it, and of the pods inside it."""
        self.selector.unregister(node.holder)
        node.close()
        del self.nodes[node.name]
        self.dead_nodes[node.name] = node.parent
        self.publish({"event": "gone", "node": node.name})

    def publish(self, event: dict[str, Any]) -> None:
        for connection in list(self.subscribers):
            try:
                send(connection, event, [])
            except OSError:
                self.forget(connection)

    # --- what can be asked ----------------------------------------------------------------------------------------

    def create(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Make nodes, all at once. Answers {} or {"error": …}: either all were made or none remains."""
        for node in request["nodes"]:
            if node["name"] in self.nodes:
                raise ValueError(f"node {node['name']} exists already")
        waiting = [(node, self.fork_holder(node)) for node in request["nodes"]]
        errors = [error for node, channel in waiting if (error := self.await_holder(node, channel))]
        if errors:
            self.remove({"nodes": [node["name"] for node in request["nodes"]]}, [])
            return {"error": "; ".join(errors)}, []
        return {}, []

    def adopt(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Take the container that the supervisor itself runs in for a node."""
        if request["name"] in self.nodes:
            raise ValueError(f"node {request['name']} exists already")
        os.makedirs("/run/netns", exist_ok=True)
        os.makedirs(LOGS, exist_ok=True)
        open_network_sysctls()
        descriptors = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in (*NAMESPACES, "pid")]
        raise_loopback()
        descriptors += make_vrfs(request["vrfs"])
        write_files(request["directories"], request["files"])
        node = Node(request["name"], "", os.pidfd_open(os.getpid()), descriptors, request["vrfs"])
        self.nodes[node.name] = node
        return {}, []

    def vrfs(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Give a node just the VRFs in `vrfs`: make those it lacks, end the others."""
        node = self.node(request["node"])
        gone = [name for name in node.vrfs if name not in request["vrfs"]]
        new = [name for name in request["vrfs"] if name not in node.vrfs]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> None:
            end_vrfs(gone)
            socket.send_fds(theirs, [NAMESPACES_READY.encode()], make_vrfs(new))

        with ours, theirs:
            self.in_node(node, work)
            descriptors = receive_with_descriptors(ours, 64)[1]
        for name in gone:
            os.close(node.vrfs.pop(name))
        node.vrfs.update(zip(new, descriptors, strict=True))
        return {}, []

    def fork_holder(self, node: dict[str, Any]) -> socket.socket:
        """Start a holder: pid 1 of a new pid namespace inside the parent's, or else inside the lab's.

        Between them stands a short-lived process, because only a process that lives in a pid namespace can make one
        below it (pid_namespaces(7)); the holder's parent is then pid 1 of the namespace above.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if node["parent"]:
            setns(self.node(node["parent"]).descriptors["pid"], CLONE_NEWPID)
        if os.fork() == 0:
            reset_child()
            ours.close()
            start_holder(node, theirs)
        setns(self.own_pid_namespace, CLONE_NEWPID)
        theirs.close()
        return ours

    def await_holder(self, node: dict[str, Any], channel: socket.socket) -> str:
        """Take over a holder when it is ready; answers what went wrong, or an empty string."""
        told: dict[str, list[int]] = {}
        with channel:
            while len(told) < 2:  # the holder and the process between speak in either order
                text, descriptors = receive_with_descriptors(channel, 65536)
                if not text:
                    break
                told[text.decode()] = descriptors
        holder, namespaces = told.pop(HOLDER, []), told.pop(NAMESPACES_READY, [])
        if not (holder and namespaces):
            for descriptor in (*holder, *namespaces):
                os.close(descriptor)
            return f"{node['name']}: {' '.join(told) or 'its holder ended'}"
        self.nodes[node["name"]] = Node(node["name"], node["parent"], holder[0], namespaces, node["vrfs"])
        self.selector.register(holder[0], selectors.EVENT_READ, self.holder_ended)
        self.dead_nodes.pop(node["name"], None)
        return ""

    def namespaces(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """A node as descriptors: net, mnt, uts, ipc, pid, one per VRF in the order answered, its holder (a pidfd)."""
        node = self.node(request["node"])
        descriptors = [*node.descriptors.values(), *node.vrfs.values(), node.holder]
        return {"vrfs": list(node.vrfs), "pid": node.host_pid}, descriptors

    def files(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Write directories and files in a node; remove the paths in `remove`."""

        def work() -> None:
            write_files(request["directories"], request["files"])
            for path in request["remove"]:
                if os.path.lexists(path):
                    os.unlink(path)

        self.in_node(self.node(request["node"]), work)
        return {}, []

    def in_node(self, node: Node, work: Any) -> None:
        """Run `work` in a child that has entered the node; raises with the child's words when it fails."""
        read, write = os.pipe2(os.O_CLOEXEC)
        setns(node.descriptors["pid"], CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                reset_child()
                for name, flag in (
                    ("net", CLONE_NEWNET),
                    ("uts", CLONE_NEWUTS),
                    ("ipc", CLONE_NEWIPC),
                    ("mnt", CLONE_NEWNS),
                ):
                    setns(node.descriptors[name], flag)
                work()
                os._exit(0)
            except BaseException as error:
                os.write(write, f"{type(error).__name__}: {error}".encode())
                os._exit(1)
        setns(self.own_pid_namespace, CLONE_NEWPID)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            text = stream.read().decode()
        os.waitpid(pid, 0)
        if text:
            raise OSError(f"{node.name}: {text}")

    def spawn(self, request: dict[str, Any], received: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Start programs. Each: node, name, argv, env, vrf, directory. Answers {} once every exec has succeeded.

        With three descriptors received, the first program gets them as its standard streams instead of a log.
        """
        started = [self.start(program, received) for program in request["processes"]]
        errors = []
        for program, (_, pipe) in zip(request["processes"], started, strict=True):
            with os.fdopen(pipe, "rb") as stream:
                text = stream.read().decode()
            if text:
                errors.append(f"{program['node']}: {program['argv'][0]}: {text}")
        return ({"error": "; ".join(errors)} if errors else {"pids": [host_pid_or_zero(pid) for pid, _ in started]}), []

    def start(self, program: dict[str, Any], streams: list[int]) -> tuple[int, int]:
        node = self.node(program["node"])
        running = node.processes.get(program["name"])
        if running and running.status is None:
            raise ValueError(f"{node.name}: {program['name']} is running already")
        read, write = os.pipe2(os.O_CLOEXEC)
        setns(node.descriptors["pid"], CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            become_program(node, program, streams, write)
        setns(self.own_pid_namespace, CLONE_NEWPID)
        os.close(write)
        node.processes[program["name"]] = Process(program["name"], program["argv"], pid)
        return pid, read

    def kill(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Send a signal to a process. Answers whether it was running."""
        process = self.node(request["node"]).processes.get(request["process"])
        if process is None or process.status is not None:
            return {"running": False}, []
        os.kill(process.pid, request["signal"])
        return {"running": True}, []

    def stop(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """End a process: SIGTERM, then SIGKILL when it has not ended within `grace` seconds; answer when it has."""
        process = self.node(request["node"]).processes.pop(request["process"], None)
        if process is None or process.status is not None:
            return {"running": False}, []
        pidfd = os.pidfd_open(process.pid)
        try:
            os.kill(process.pid, signal.SIGTERM)
            if not select.select([pidfd], [], [], request["grace"])[0]:
                os.kill(process.pid, signal.SIGKILL)
            wait_gone(process.pid)
        finally:
            os.close(pidfd)
        return {"running": True}, []

    def remove(self, request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """End nodes (and the pods inside them) and wait until the kernel has taken them down."""
        names = set(request["nodes"])
        doomed = [node for node in self.nodes.values() if node.name in names or node.parent in names]
        doomed.sort(key=lambda node: node.parent == "")  # pods first
        for node in doomed:
            node.kill()
        for process in [process for node in doomed for process in node.processes.values()]:
            if process.status is None:
                wait_gone(process.pid)
        for node in doomed:
            select.select([node.holder], [], [])
            self.bury(node)
            self.dead_nodes.pop(node.name, None)
        for name in names:
            self.dead_nodes.pop(name, None)
        return {}, []

    def state(self, _request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """All nodes with their processes, and the nodes that ended unasked."""
        nodes = {
            node.name: {
                "parent": node.parent,
                "pid": node.host_pid,
                "vrfs": list(node.vrfs),
                "processes": {process.name: process.describe() for process in node.processes.values()},
            }
            for node in self.nodes.values()
        }
        return {"nodes": nodes, "dead": sorted(self.dead_nodes)}, []

    def subscribe(self, _request: dict[str, Any], _: list[int]) -> tuple[dict[str, Any], list[int]]:
        """From now on this connection is told of every process and node that ends."""
        return {}, []

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise KeyError(f"no node {name}")
        return self.nodes[name]


HANDLERS = {
    "create": Supervisor.create,
    "adopt": Supervisor.adopt,
    "vrfs": Supervisor.vrfs,
    "namespaces": Supervisor.namespaces,
    "files": Supervisor.files,
    "spawn": Supervisor.spawn,
    "kill": Supervisor.kill,
    "stop": Supervisor.stop,
    "remove": Supervisor.remove,
    "state": Supervisor.state,
    "subscribe": Supervisor.subscribe,
}


def host_pid_or_zero(pid: int) -> int:
    try:
        return host_pid(pid)
    except OSError:
        return 0


def wait_gone(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def reset_child() -> None:
    """What a forked child must not inherit: the supervisor's signal plumbing and its strict umask."""
    os.umask(0o022)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def become_program(node: Node, program: dict[str, Any], streams: list[int], failure: int) -> None:
    """In the new process: enter the node, set the standard streams, become the program. Never returns."""
    try:
        reset_child()
        os.setsid()
        network = node.vrfs[program["vrf"]] if program["vrf"] else node.descriptors["net"]
        setns(network, CLONE_NEWNET)
        for name, flag in (("uts", CLONE_NEWUTS), ("ipc", CLONE_NEWIPC), ("mnt", CLONE_NEWNS)):
            setns(node.descriptors[name], flag)
        os.chdir(program["directory"])
        if len(streams) == 3:
            for target, descriptor in enumerate(streams):
                os.dup2(descriptor, target)
            if os.isatty(0):
                fcntl.ioctl(0, termios.TIOCSCTTY, 1)
        else:
            log = os.open(f"{LOGS}/{program['name']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
        os.umask(0o022)
        os.execvpe(program["argv"][0], program["argv"], {**ENVIRONMENT, **program["env"]})
    except BaseException as error:  # told through the pipe that a successful exec would have closed
        os.write(failure, str(error).encode())
        os._exit(127)


def receive_with_descriptors(connection: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Bytes and the descriptors that came with them. No program inherits those: it would keep other nodes alive."""
    data, descriptors, _, _ = socket.recv_fds(connection, size, 64)
    for descriptor in descriptors:  # recv_fds passes no MSG_CMSG_CLOEXEC on, though it takes it
        os.set_inheritable(descriptor, False)
    return data, descriptors


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise OSError("the connection ended in the middle of a message")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def send(connection: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    body = json.dumps(message).encode()
    connection_head = struct.pack("!I", len(body))
    if descriptors:
        socket.send_fds(connection, [connection_head], descriptors)
    else:
        connection.sendall(connection_head)
    connection.sendall(body)


def supervise_container(state: str) -> None:
    """Be pid 1 of a container, which is one node (with its pods)."""
    os.umask(0o022)
    os.makedirs(state, mode=0o700, exist_ok=True)
    Supervisor(state).serve()


def main() -> None:
    name, state = sys.argv[1:3]
    if "--container" in sys.argv[3:]:
        supervise_container(state)
    os.umask(0o077)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    let_go_of_others()
    unshare(CLONE_NEWPID)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(ready_write)
        os._exit(0 if os.read(ready_read, 1) else 1)
    libc.prctl(PR_SET_NAME, f"lab:{name}".encode()[:15], 0, 0, 0)
    supervisor = Supervisor(state)
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):  # whoever started us must not wait for our end of its pipes
        os.dup2(null, stream)
    os.write(ready_write, b"1")
    os.close(ready_write)
    supervisor.serve()


if __name__ == "__main__":
    main()
