"""Programs whose sockets are bound to a device without their knowing."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from testbed import bound
from testbed.bound import sockets_bound_to
from testbed.errors import UnsupportedError

CLONE_NEWNET = 0x40000000


def in_namespace(work: Callable[[], str]) -> str:
    """What `work` returns in a network namespace with a device `red`."""
    results: list[str] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0:
                subprocess.run(["ip", "link", "add", "red", "type", "veth", "peer", "name", "other"], check=True)
                results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    if not results:
        pytest.skip("not run: network namespaces need root")
    return results[0]


def said(device: str, program: str) -> str:
    def work() -> str:
        with sockets_bound_to(device) as before_exec:
            argv = [sys.executable, "-c", program]
            done = subprocess.run(argv, preexec_fn=before_exec, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout

    return in_namespace(work)


SOCKETS = """
import os, socket
def device(*what):
    try:
        with socket.socket(*what) as made:
            return made.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\\0").decode() or "none"
    except OSError as error:
        return error.strerror
"""
KINDS = "print(device(), device(socket.AF_INET6, socket.SOCK_DGRAM), device(socket.AF_INET, socket.SOCK_RAW, 1))"


def test_sockets_of_ip_are_bound() -> None:
    assert said("red", SOCKETS + KINDS) == "red red red\n"
    assert said("", SOCKETS + KINDS) == "none none none\n"


def test_other_sockets_are_left_alone() -> None:
    others = "print(device(socket.AF_UNIX), device(socket.AF_NETLINK, socket.SOCK_RAW))"
    assert "red" not in said("red", SOCKETS + others)


def test_what_the_program_starts_is_bound_too() -> None:
    child = "print(device(), flush=True) if os.fork() == 0 else os.wait()"
    assert said("red", SOCKETS + child) == "red\n"


def test_errors_and_flags_are_those_of_the_call() -> None:
    assert said("red", SOCKETS + "print(device(socket.AF_INET, 99))") == f"{os.strerror(22)}\n"
    flags = "made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK); "
    assert (
        said("red", "import socket; " + flags + "print(made.get_inheritable(), made.getblocking())") == "False False\n"
    )


def test_a_program_without_sockets_and_no_program_at_all() -> None:
    assert said("red", "print('done')") == "done\n"

    def work() -> str:
        with sockets_bound_to("red"):
            return "nothing was started"

    before = threading.active_count()
    assert in_namespace(work) == "nothing was started"
    assert threading.active_count() == before


def test_a_machine_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound.platform, "machine", lambda: "vax")
    with pytest.raises(UnsupportedError, match="cannot be bound to VRF red on vax"), sockets_bound_to("red"):
        pass
