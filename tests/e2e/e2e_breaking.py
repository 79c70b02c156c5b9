"""Faults of running labs: what one is, how it is brought about, and what the explanation of a flow must then say."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.session import Session
from testbed.trace.evidence import Cause

Command = tuple[str, str | None, str]
"""Node (or the beginning of a pod's name), VRF, and the words of a command."""


@dataclass(frozen=True)
class Broken:
    """One fault.

    Args:
        flow: the flow that it breaks. do, undo: commands that bring it about and end it.
        kinds: the causes any of which is right. nodes: any of which must be blamed.
        words: what the sentence must hold.
        wait: whether routing has to notice first.
    """

    name: str
    flow: str
    do: tuple[Command, ...]
    undo: tuple[Command, ...]
    kinds: tuple[str, ...]
    nodes: tuple[str, ...]
    words: tuple[str, ...] = ()
    wait: bool = False


def filled(text: str, known: Mapping[str, str]) -> str:
    """A command's or an expectation's words with the names in braces replaced; doubled braces are braces."""
    for name, value in known.items():
        text = text.replace("{" + name + "}", value)
    return text.replace("{{", "{").replace("}}", "}")


def carry_out(session: Session, commands: tuple[Command, ...], known: Mapping[str, str]) -> None:
    """Run commands in a lab; besides programs there are `kill`, `stop`, `cont` (programs) and `node`."""
    for node, vrf, words in commands:
        text = filled(words, known)
        if node == "kill":
            name, process = text.split()
            assert session.runtime.signal(session.node(name).name, process, signal.SIGKILL)
        elif node in ("stop", "cont"):
            for name in session.node(text).processes:
                session.runtime.signal(
                    session.node(text).name, name, signal.SIGSTOP if node == "stop" else signal.SIGCONT
                )
        elif node == "node":
            os.kill(session.node(text).pid, signal.SIGKILL)
        elif text.startswith("nft "):
            session.runtime.run(session.node(node).name, vrf, ("nft", text.removeprefix("nft ")))
        else:
            session.runtime.run(session.node(node).name, vrf, shlex.split(text))


def assert_named(cause: Cause | None, broken: Broken, known: Mapping[str, str]) -> None:
    """The cause is of one of the kinds, at one of the nodes, and its sentence holds the words."""
    assert cause is not None
    said = f"{cause.kind} at {cause.node}: {cause.sentence}\n" + "\n".join(cause.evidence)
    assert cause.kind in broken.kinds, said
    assert cause.node in {filled(node, known) for node in broken.nodes}, said
    for word in broken.words:
        assert filled(word, known) in cause.sentence, said
