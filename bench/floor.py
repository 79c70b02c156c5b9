"""The floor: the daemons of a lab and the kernel, and nothing else. A process of its own.

    python -m bench.floor LAB SCRIPTS.json

Namespaces by unshare(1), links and addresses in batches of netlink messages, then the daemons, each node's by the shell
script that SCRIPTS.json names. No root file system of its own for a node, no supervisor, no question asked of a daemon.
The clock of the floor starts at its line "begin", when what is above the kernel has been imported and compiled. Ends
when its standard input does, and all with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from testbed.plan import Plan
from testbed.runtime.namespaces import Networks
from testbed.session import compiled


def holders(plan: Plan) -> dict[str, subprocess.Popen[str]]:
    """A process per node that waits, in namespaces of the node's own, for the name of the script that it runs.

    It stays process 1 there: a daemon that changes its user would forget that it should die with its parent (prctl(2)).
    """
    waiting = "echo; read script; sh $script; :"
    argv = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", waiting)
    return {
        node.name: subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for node in plan.nodes
    }


def network(holder: subprocess.Popen[str]) -> int:
    """The network namespace of a holder, once it stands."""
    assert holder.stdout is not None
    holder.stdout.readline()
    return os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def main() -> None:
    plan = compiled(sys.argv[1])
    scripts = json.loads(Path(sys.argv[2]).read_text())
    print("begin", flush=True)
    nodes = holders(plan)
    descriptors = {name: network(holder) for name, holder in nodes.items()}
    with Networks(plan.nodes, lambda node, _: descriptors[node]) as networks:
        networks.program(plan.links)
    for name, holder in nodes.items():
        assert holder.stdin is not None
        holder.stdin.write(f"{scripts[name]}\n")
        holder.stdin.flush()
    sys.stdin.read()
    for holder in nodes.values():
        holder.kill()  # the kernel ends a pid namespace with its first process
    for holder in nodes.values():
        holder.wait()


if __name__ == "__main__":
    main()
