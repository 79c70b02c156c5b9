"""Nodes that die while `testbed watch` is at work: the others do what Kubernetes would have them do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from conftest import LABS, assert_flows, own_name, running
from e2e_changing import brought_up
from test_egress_live import BALANCED, BY_MGMT, SERVER, Changing, Conversation, Sent, capture, talking

from testbed.deploy.watch import Reaction
from testbed.errors import InputError
from testbed.report.reactions import reaction_lines
from testbed.session import Session, compiled
from testbed.wait import Deadline, until

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns", "vxlan")]

EGRESS = str(LABS / "egress")
LAST = 30.0  # seconds for a reaction


@dataclass
class Watched:
    """What a watch saw; `error`: by what it ended."""

    thread: threading.Thread
    reactions: list[Reaction] = field(default_factory=list)
    error: Exception | None = None

    def wait(self, number: int) -> Reaction:
        assert until(lambda: len(self.reactions) >= number or not self.thread.is_alive(), Deadline(LAST))
        assert len(self.reactions) >= number, self.error
        return self.reactions[number - 1]


@contextlib.contextmanager
def watching(session: Session, lab: str) -> Iterator[Watched]:
    """`testbed watch` for the length of the block."""
    watch = session.watch(lab)
    ours, theirs = socket.socketpair()

    def run() -> None:
        try:
            for reaction in watch.reactions(theirs):
                found.reactions.append(reaction)
        except Exception as error:
            found.error = error

    found = Watched(threading.Thread(target=run))
    with ours, theirs:
        found.thread.start()
        try:
            yield found
        finally:
            ours.send(b"end")
            found.thread.join()


def kill(session: Session, node: str) -> None:
    os.kill(session.nodes()[node].pid, signal.SIGKILL)


@pytest.fixture
def lab(tmp_path) -> Iterator[Changing]:
    with brought_up(Changing, EGRESS, "watch", tmp_path / "egress") as found:
        yield found


def test_the_egress_moves_when_its_node_dies(lab, record_testsuite_property):
    """Two deaths of one node, with `testbed up` between them, under traffic of a pod on another node.

    This handed over to it by their link, and does to the next one, in another rack, by the tunnel.
    """
    session, pod = lab.session, lab.pod("n2")
    assert lab.translator == "n1"
    hand_over = Sent("n2", "eth0", lab.mac("n1", "eth0"), lab.address(pod), SERVER, pod)
    with watching(session, str(lab.folder)) as watched:
        for number in (1, 2):
            with capture(session) as found, talking(session, pod) as talk:
                assert until(lambda: len(talk.answered) >= 10, Deadline(5)), f"{pod} had no answers at all"
                kill(session, "n1")
                reaction = watched.wait(number)
                assert goes_on(talk), talk.report(pod)
            assert (reaction.ended, reaction.problem) == (("n1",), "")
            assert lab.translator == "n3"
            assert talk.peers == {BALANCED}
            assert_right(found.to(SERVER), hand_over)
            figures = f"{talk.report(pod)}, applied in {reaction.seconds:.2f} s"
            record_testsuite_property(f"egress when its node dies, {number}", figures)
            assert any("announced by n3, before by n1" in line for line in reaction_lines(reaction))
            # The dead pod is no endpoint any more: one of four connections would have gone to it.
            for _ in range(12):
                assert_flows(session, ["ingress"])
            session.up(compiled(str(lab.folder), session.name))
            assert lab.translator == "n1"
            assert_flows(session)
    assert watched.error is None


def goes_on(talk: Conversation) -> bool:
    before = len(talk.answered)
    return until(lambda: len(talk.answered) >= before + 10, Deadline(LAST))


def assert_right(packets: list[Sent], hand_over: Sent) -> None:
    """What is for the server left with the Service's address by sbi, or was handed to the node that translates."""
    tunnelled = hand_over._replace(carried=(BY_MGMT["n2"], BY_MGMT["n3"]))
    assert any(packet == hand_over for packet in packets), "the other node had nothing to do"
    assert any((packet.node, packet.source) == ("n3", BALANCED) for packet in packets), "it did not move"
    for packet in packets:
        as_it_was = packet == hand_over or packet._replace(station=hand_over.station) == tunnelled
        assert as_it_was or (packet.interface, packet.source) == ("eth1", BALANCED), packet


def test_where_no_other_node_can_nothing_is_changed(lab):
    with watching(lab.session, str(lab.folder)) as watched:
        kill(lab.session, "n1")
        assert not watched.wait(1).problem
        kill(lab.session, "n2")
        assert not watched.wait(2).problem
        kill(lab.session, "n3")
        third = watched.wait(3)
        assert "no node can translate (n1: it is not ready; n2: it is not ready; n3: it is not ready)" in third.problem
        assert lab.session.plan.not_ready == ("n1", "n2")
        lab.session.up(compiled(str(lab.folder), lab.session.name))
        assert_flows(lab.session)
        kill(lab.session, "n3")  # it is seen again
        assert watched.wait(4).ended == ("n3",)


def test_files_that_do_not_say_what_runs_are_not_applied(lab):
    lab.exclude("n1")
    with pytest.raises(InputError, match="what runs is not what the lab's files say"):
        lab.session.watch(str(lab.folder))
    lab.up()
    assert lab.session.watch(str(lab.folder)).nodes == ("n1", "n2", "n3")


def test_a_lab_without_a_cluster_is_refused():
    lab = str(LABS / "two-routers")
    with (
        running(compiled(lab, own_name("watch"))) as session,
        pytest.raises(InputError, match="has no embedded cluster"),
    ):
        session.watch(lab)


def test_it_ends_with_the_lab(lab):
    with watching(lab.session, str(lab.folder)) as watched:
        with Session(lab.session.name) as other:
            other.down()
        watched.thread.join(LAST)
        assert not watched.thread.is_alive()
        assert not watched.reactions
        assert watched.error is None


def test_the_command(lab):
    argv = (sys.executable, "-m", "testbed.cli", "watch", str(lab.folder), "--name", lab.session.name)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == f"{lab.session.name}: watching n1, n2, n3; Ctrl-C ends that\n"
        kill(lab.session, "n1")
        lines = [command.stdout.readline() for _ in range(4)]
        assert lines[0].endswith("n1 has ended: not ready\n")
        assert lines[1:3] == [
            "  Service default/app: announced by n3, before by n1\n",
            "  Service default/app: 1 endpoint less, 3 left\n",
        ]
        assert lines[3].startswith("  applied in ")
        lab.session.down()
        assert command.wait(LAST) == 5


@pytest.mark.docker
@pytest.mark.testbed_needs("docker")
def test_a_container_that_is_killed():
    plan = compiled(EGRESS, own_name("watch"), runtime="docker")
    with Session(plan.name, "docker") as session:
        try:
            session.up(plan)
            assert_flows(session)
            with watching(session, EGRESS) as watched:
                pid = int(session.runtime.proc("n1", 1).parts[2])
                os.kill(pid, signal.SIGKILL)
                assert watched.wait(1).ended == ("n1",)
                assert not watched.wait(1).problem
                # BGP takes some seconds to have the answers come in at the other node.
                assert until(lambda: session.test(["udp-n2"])[0].passed, Deadline(LAST))
            session.up(plan)
            assert_flows(session)
        finally:
            session.down()
