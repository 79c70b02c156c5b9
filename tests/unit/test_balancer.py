"""The commands that change address sets and virtual servers from what is there to what is planned."""

from __future__ import annotations

import pytest

from testbed.deploy.balancer import servers_to_change, sets_to_add, sets_to_remove

PORTS = "bitmap:port range 0-65535"
SETS = f"create A {PORTS}\ncreate B {PORTS}\nadd A 80\nadd A 81\nadd B 90\n"
WEB = "-A -t 10.96.0.10:80 -s rr\n-a -t 10.96.0.10:80 -r 192.168.1.10:8080 -m -w 1\n"
DNS = "-A -u 10.96.0.53:53 -s rr\n"


@pytest.mark.parametrize(
    ("found", "added", "removed"),
    [
        ("", SETS, ""),
        (SETS, "", ""),
        # A set is the same whatever the kernel says of it besides (initval is random).
        (SETS.replace("0-65535", "0-65535 initval 0x1234"), "", ""),
        (f"create A {PORTS}\nadd A 80\nadd A 82\n", f"create B {PORTS}\nadd A 81\nadd B 90\n", "del A 82\n"),
        (f"{SETS}create C {PORTS}\nadd C 1\n", "", "destroy C\n"),  # with all its entries
    ],
)
def test_sets(found: str, added: str, removed: str) -> None:
    assert sets_to_add(SETS, found) == added
    assert sets_to_remove(SETS, found) == removed


def test_all_sets_go() -> None:
    assert sets_to_remove("", SETS) == "destroy A\ndestroy B\n"


@pytest.mark.parametrize(
    ("wanted", "found", "commands"),
    [
        (WEB, "", WEB),
        (WEB, WEB, ""),
        ("", WEB, "-D -t 10.96.0.10:80\n"),  # its real servers go with it
        (WEB + DNS, WEB, DNS),
        (WEB, DNS + WEB, "-D -u 10.96.0.53:53\n"),
        # The same address and port of another protocol is another server.
        (WEB + WEB.replace("-t", "-u"), WEB, WEB.replace("-t", "-u")),
        (
            WEB.replace("192.168.1.10", "192.168.2.10"),
            WEB,
            "-d -t 10.96.0.10:80 -r 192.168.1.10:8080\n-a -t 10.96.0.10:80 -r 192.168.2.10:8080 -m -w 1\n",
        ),
        (WEB.replace("-s rr", "-s wlc -p 60"), WEB, "-E -t 10.96.0.10:80 -s wlc -p 60\n"),
        (WEB.replace("-w 1", "-w 0"), WEB, "-e -t 10.96.0.10:80 -r 192.168.1.10:8080 -m -w 0\n"),
        (
            "-A --sctp-service [fd00::1]:80 -s rr\n-a --sctp-service [fd00::1]:80 -r [fd00::2]:80 -m -w 1\n",
            "-A --sctp-service [fd00::1]:80 -s rr\n",
            "-a --sctp-service [fd00::1]:80 -r [fd00::2]:80 -m -w 1\n",
        ),
    ],
)
def test_servers(wanted: str, found: str, commands: str) -> None:
    assert servers_to_change(wanted, found) == commands
