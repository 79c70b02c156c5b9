"""Binds a program's sockets to a VRF device, whatever the program: each socket it asks for is made for it.

A socket belongs to a VRF device once it is bound to it (SO_BINDTODEVICE; Linux Documentation/networking/vrf.rst). Few
programs can be told to. `ip vrf exec` has the kernel do it for all programs of a control group, by a program of the
control group's; that would leave groups on the host, and nodes with VRFs of one name would share them. Here the kernel
hands each socket(2) call of IP to us (seccomp_unotify(2)), and gets a bound socket to answer it with; nothing remains.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from testbed.errors import UnsupportedError

CLONE_NEWNET = 0x40000000
# linux/seccomp.h
SET_MODE_FILTER, FLAG_NEW_LISTENER = 1, 1 << 3
RET_USER_NOTIF, RET_ALLOW = 0x7FC00000, 0x7FFF0000
NOTIF, ADDFD, RESPONSE = "=QII iIQ6Q", "=QIIII", "=QqiI"
NOTIF_RECV, NOTIF_SEND, NOTIF_ADDFD = 0xC0502100, 0xC0182101, 0x40182103
ADDFD_FLAG_SEND = 1 << 1  # answer the call with the descriptor, in one step (Linux 5.14)
# machine → (AUDIT_ARCH_*, number of socket(2), number of seccomp(2)); linux/audit.h, asm/unistd.h
MACHINES = {"x86_64": (0xC000003E, 41, 317), "aarch64": (0xC00000B7, 198, 277)}
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def sockets_bound_to(device: str, network: int | None = None) -> Iterator[Callable[[], None] | None]:
    """Bind the IP sockets of a program that is started inside the block to a VRF device.

    Args:
        device: its name; empty: bind nothing.
        network: descriptor of the network namespace that it is in; None: the calling thread's.

    Not to be entered by a thread that has entered a pid namespace: it can start no other (setns(2)).

    Yields:
        What the program's process calls between fork and exec; None: nothing.

    Raises:
        UnsupportedError: on a machine whose numbers of system calls are not known here.
    """
    if not device:
        yield None
        return
    machine = platform.machine()
    if machine not in MACHINES:
        raise UnsupportedError(f"sockets of a program cannot be bound to VRF {device} on {machine}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = threading.Thread(target=_serve, args=(ours, device, network), name=f"sockets of VRF {device}", daemon=True)
    server.start()
    try:
        yield lambda: _install(theirs, *MACHINES[machine])
    finally:
        theirs.close()  # which ends the server
        server.join()
        ours.close()


def _install(channel: socket.socket, architecture: int, socket_call: int, seccomp_call: int) -> None:
    """In the program's process: from now on socket(2) with a family of IP is answered by who reads from the channel."""
    program = (
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 3, socket_call),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 2, 0, socket.AF_INET),
        (JUMP_IF_EQUAL, 1, 0, socket.AF_INET6),
        (RETURN, 0, 0, RET_ALLOW),
        (RETURN, 0, 0, RET_USER_NOTIF),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    argument = struct.pack("HL", len(program), ctypes.addressof(code))
    listener = _libc.syscall(seccomp_call, SET_MODE_FILTER, FLAG_NEW_LISTENER, argument)
    if listener < 0:
        code_ = ctypes.get_errno()
        raise OSError(code_, f"seccomp: {os.strerror(code_)}")
    socket.send_fds(channel, [b"listener"], [listener])
    os.close(listener)


def _serve(channel: socket.socket, device: str, network: int | None) -> None:
    """Make the sockets that the program, and what it starts, ask for; until the other end of the channel is closed.

    Where the network cannot be entered, making them fails, for there is no such device.
    """
    if network is not None:
        _libc.setns(network, CLONE_NEWNET)
    _, listeners, _, _ = socket.recv_fds(channel, 16, 1)
    for listener in listeners:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(channel, select.POLLIN)
        while ready := dict(poll.poll()):
            if channel.fileno() in ready:
                break
            if ready[listener] & select.POLLHUP:  # the program and all it started have ended
                poll.unregister(listener)
            elif ready[listener] & select.POLLIN:
                with contextlib.suppress(OSError):  # ENOENT: who asked was killed meanwhile
                    _answer(listener, device)
        os.close(listener)


def _answer(listener: int, device: str) -> None:
    """Answer one call with a bound socket, or with the error that making it ran into."""
    request = bytearray(struct.calcsize(NOTIF))
    fcntl.ioctl(listener, NOTIF_RECV, request)
    number, _, _, _, _, _, family, kind, protocol = struct.unpack(NOTIF, request)[:9]
    try:
        made = socket.socket(_int(family), _int(kind), _int(protocol))
    except OSError as error:
        _refuse(listener, number, error.errno or errno.EINVAL)
        return
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        flags = os.O_CLOEXEC if kind & socket.SOCK_CLOEXEC else 0
        fcntl.ioctl(listener, NOTIF_ADDFD, struct.pack(ADDFD, number, ADDFD_FLAG_SEND, made.fileno(), 0, flags))


def _refuse(listener: int, number: int, code: int) -> None:
    fcntl.ioctl(listener, NOTIF_SEND, struct.pack(RESPONSE, number, 0, -code, 0))


def _int(value: int) -> int:
    """The 32 bits of an argument that the call looks at."""
    return value & 0xFFFFFFFF
