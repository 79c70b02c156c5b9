"""`python -m bench`, as root: how long labs take and what they weigh, beside bare daemons and other tools.

Results are medians, with the least and the greatest where there are several runs. Contenders take turns within a round
(A B C A B C), because a machine's pace changes from minute to minute: ratios say more than seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from bench import change, get_peers, machine, trace
from bench.contest import FailedRunError, Run, environment, run_floor, run_mininet, run_munet, run_testbed
from bench.fabric import FABRICS, Fabric, lab_text
from bench.peers import ROOT, find_mininet, find_munet
from bench.table import aligned, ratio, spread
from testbed.errors import TestbedError
from testbed.runtime import engine
from testbed.session import RUNTIMES, compiled

PARTS = ("cli", "edge", "change", "trace", "runtimes", "fabric", "peers")
EDGE_RUNS, CHANGE_RUNS, TRACE_RUNS, RUNTIME_RUNS, FABRIC_RUNS, CLI_RUNS = 5, 3, 5, 3, 3, 7
EDGE_GOAL, DOWN_GOAL, HELP_GOAL, FLOOR_GOAL = 4.0, 1.0, 0.3, 1.5
EDGE_NAME = "bench-edge"

Results = dict[str, list[Run]]


@dataclasses.dataclass
class Bench:
    """What was asked for, and what came out, as it will be written to a file.

    Args:
        runs: of each contender; 0 for each part's own number. ok: whether everything worked.
    """

    parts: Sequence[str]
    runs: int
    found: dict[str, Any] = dataclasses.field(default_factory=dict)
    ok: bool = True

    def rounds(self, usual: int) -> int:
        return self.runs or usual

    def keep(self, what: str, results: Mapping[str, Sequence[Run]]) -> None:
        self.found[what] = {name: [dataclasses.asdict(run) for run in runs] for name, runs in results.items()}

    def failed(self, message: str) -> None:
        self.ok = False
        print(f"FAILED: {message}")


def main() -> int:
    options = _options()
    if options.get_peers:
        get_peers.get()
    if os.geteuid() != 0:
        print("labs need root", file=sys.stderr)
        return 3
    bench = Bench(options.only or PARTS, options.runs)
    bench.found["machine"] = f"{date.today()}, {machine.description()}"
    print(bench.found["machine"])
    _warm_up()
    before = machine.host_network()
    runs = {"cli": _cli, "edge": _edge, "change": _change, "trace": _trace, "runtimes": _runtimes, "fabric": _fabrics}
    for part, run in runs.items():
        if part in bench.parts or (part == "fabric" and "peers" in bench.parts):
            run(bench)
    if changes := machine.network_changes(before):
        print("\nOf the host's own network, this is not as it was before (by this or by something else):")
        print("\n".join(changes))
    else:
        print("\nThe host's own interfaces, addresses, routes and rules are as they were.")
    if options.json:
        options.json.write_text(json.dumps(bench.found, indent=1) + "\n")
    return 0 if bench.ok else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given several times")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="runs of each contender")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    parser.add_argument("--get-peers", action="store_true", help="first put munet and Mininet into .cache")
    return parser.parse_args()


def _warm_up() -> None:
    """Compile the package's Python once, as a user's first command does."""
    subprocess.run(
        (sys.executable, "-m", "testbed", "doctor"), cwd=ROOT, env=environment(), capture_output=True, check=False
    )
    code = "import testbed.session, testbed.runtime.namespaces, testbed.probe.ssh, testbed.probe.http"
    subprocess.run((sys.executable, "-c", code), cwd=ROOT, env=environment(), check=True)


# --- the command itself -----------------------------------------------------------------------------------------------


def _timed(argv: Sequence[str], good: Sequence[int] = (0,)) -> float:
    """Seconds that a command takes. Raises FailedRunError when it ends with a status that is not good."""
    begin = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begin
    if done.returncode not in good:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise FailedRunError(f"{' '.join(argv[1:])}: status {done.returncode}: {lines[-1] if lines else 'no output'}")
    return seconds


def _command() -> str:
    return str(Path(sys.executable).with_name("testbed"))


def _cli(bench: Bench) -> None:
    print("\n# The command line\n")
    wanted = {
        "testbed --help": (_command(), "--help"),
        "testbed list": (_command(), "list"),
        "testbed plan edge": (_command(), "plan", "edge"),
        "python -c pass": (sys.executable, "-c", "pass"),
    }
    times: dict[str, list[float]] = {name: [] for name in wanted}
    try:
        for _ in range(bench.rounds(CLI_RUNS)):
            for name, argv in wanted.items():
                times[name].append(_timed(argv))
    except (FailedRunError, OSError) as error:
        bench.failed(str(error))
    bench.found["cli"] = times
    goals = {"testbed --help": f"{HELP_GOAL}"}
    print(
        aligned(
            ("command", "s", "goal"), [(name, spread(seconds), goals.get(name, "")) for name, seconds in times.items()]
        )
    )


# --- labs/edge --------------------------------------------------------------------------------------------------------


def _edge(bench: Bench) -> None:
    """The lab in parts, and in turn with it the very commands that a user types."""
    print("\n# labs/edge: from nothing to all flows proven\n")
    runs: list[Run] = []
    ups: list[float] = []
    downs: list[float] = []
    for _ in range(bench.rounds(EDGE_RUNS)):
        try:
            runs.append(run_testbed("edge", EDGE_NAME))
            ups.append(_timed((_command(), "up", "edge", "--name", EDGE_NAME)))
        except FailedRunError as error:
            bench.failed(str(error))
        finally:
            downs.append(_timed((_command(), "down", EDGE_NAME), good=(0, 5)))
    bench.keep("edge", {"testbed": runs})
    bench.found["edge commands"] = {"testbed up": ups, "testbed down": downs}
    rows = [(part, spread([run.parts.get(part, 0.0) for run in runs]), "") for part in (runs[0].parts if runs else ())]
    rows.append(("all flows proven", spread([run.proven for run in runs]), f"{EDGE_GOAL}"))
    rows.append(("down", spread([run.down for run in runs]), f"{DOWN_GOAL}"))
    rows.append(("the command `testbed up edge`", spread(ups), ""))
    rows.append(("the command `testbed down`", spread(downs), ""))
    print(aligned(("part", "s", "goal"), rows))
    print(f"\nmemory of the whole lab: {spread([run.memory for run in runs], 0)} MB")
    for run in runs:
        if run.failed:
            bench.failed(f"flows that are not as expected: {', '.join(run.failed)}")


def _change(bench: Bench) -> None:
    print("\n# labs/edge changed in place, and back\n")
    try:
        found = change.measure(bench.rounds(CHANGE_RUNS))
    except TestbedError as error:  # frr-reload.py has a minute for a router, which a busy machine may exceed
        bench.failed(str(error))
        return
    bench.found["change"] = dataclasses.asdict(found)
    change.show(found)


def _trace(bench: Bench) -> None:
    print("\n# Watching packets in labs/edge\n")
    found = trace.measure(bench.rounds(TRACE_RUNS))
    bench.found["trace"] = dataclasses.asdict(found)
    trace.show(found)


# --- runtimes ---------------------------------------------------------------------------------------------------------


def _runtimes(bench: Bench) -> None:
    """The same labs on every runtime that this machine has, side by side."""
    print("\n# Runtimes\n")
    there = []
    for runtime in RUNTIMES:
        if reason := _lacks(runtime):
            print(f"{runtime}: not run: {reason}")
        else:
            there.append(runtime)
    for lab in ("two-routers", "edge"):
        name = f"bench-{lab}"
        contenders = {runtime: partial(run_testbed, lab, f"{name}-{runtime}", runtime) for runtime in there}
        results = _take_turns(bench, contenders, bench.rounds(RUNTIME_RUNS))
        bench.keep(f"runtimes, {lab}", results)
        rows = []
        for runtime, runs in results.items():
            columns = [[getattr(run, what) for run in runs] for what in ("up", "proven", "down", "memory")]
            rows.append((runtime, *(spread(column, 0 if column is columns[-1] else 2) for column in columns)))
        print(f"\nlabs/{lab}")
        print(aligned(("", "up, s", "all flows proven, s", "down, s", "MB"), rows))
        for runtime, runs in results.items():
            if failed := sorted({flow for run in runs for flow in run.failed}):
                bench.failed(f"{lab} on {runtime}: flows that are not as expected: {', '.join(failed)}")


def _lacks(runtime: str) -> str:
    """What this machine lacks for a runtime; empty when nothing."""
    if runtime == "netns":
        return ""
    if not engine.answers():
        return f"no Docker engine answers at {engine.address()}"
    if runtime == "containerlab" and not shutil.which("containerlab"):
        return "containerlab is not installed"
    return ""


# --- fabrics ----------------------------------------------------------------------------------------------------------

# Bare daemons, measured once on a quiet machine of 2 processors with kernel 6.18 and FRR 8.4.4: seconds and MB.
RECORDED = {20: (2.0, 446.0), 50: (4.6, 1305.0)}
OURS, FLOOR = "testbed", "bare daemons"


def _fabrics(bench: Bench) -> None:
    for fabric in FABRICS if "fabric" in bench.parts else FABRICS[:1]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            lab = Path(folder, "lab.yaml")
            lab.write_text(lab_text(fabric))
            _fabric(bench, fabric, str(lab))


def _fabric(bench: Bench, fabric: Fabric, lab: str) -> None:
    plan = compiled(lab)
    size = f"{fabric.routers} routers, {fabric.links} links, {len(plan.routes)} BGP routes in kernels"
    print(f"\n# Leaf-spine fabric: {size}\n")
    contenders: dict[str, Callable[[], Run]] = {OURS: lambda: run_testbed(lab, fabric.name)}
    contenders[FLOOR] = lambda: run_floor(lab, plan)
    if "peers" in bench.parts and fabric == FABRICS[0]:
        for name, found in (("munet", find_munet()), ("Mininet", find_mininet())):
            if isinstance(found, str):
                print(f"{name}: not run: {found}")
            else:
                run = run_munet if name == "munet" else run_mininet
                contenders[name] = lambda run=run, found=found: run(found, plan)  # type: ignore[misc]
    results = _take_turns(bench, contenders, bench.rounds(FABRIC_RUNS))
    bench.keep(fabric.name, results)
    _print_fabric(fabric, results)


def _take_turns(bench: Bench, contenders: Mapping[str, Callable[[], Run]], rounds: int) -> Results:
    """Each contender once per round. One that fails does not run again."""
    results: Results = {name: [] for name in contenders}
    out: set[str] = set()
    for _ in range(rounds):
        for name, run in contenders.items():
            if name in out:
                continue
            try:
                results[name].append(run())
            except FailedRunError as error:
                out.add(name)
                print(f"{name}: not run to the end: {error}")
                bench.ok = bench.ok and name not in (OURS, FLOOR, *RUNTIMES)
    return results


def _print_fabric(fabric: Fabric, results: Results) -> None:
    ours = results[OURS]
    rows = []
    for name, runs in results.items():
        up, down, used = ([getattr(run, what) for run in runs] for what in ("up", "down", "memory"))
        base_up, base_used = [run.up for run in ours], [run.memory for run in ours]
        rows.append((name, spread(up), ratio(up, base_up), spread(down), spread(used, 0), ratio(used, base_used)))
    seconds, megabytes = RECORDED[fabric.routers]
    rows.append((f"{FLOOR}, recorded", f"{seconds}", "", "", f"{megabytes:.0f}", ""))
    print(aligned(("", "up, s", "x testbed", "down, s", "MB", "x testbed"), rows))
    floor = results[FLOOR]
    if ours and floor:
        time_ratio = ratio([run.up for run in ours], [run.up for run in floor])
        memory_ratio = ratio([run.memory for run in ours], [run.memory for run in floor])
        print(f"\ntestbed over bare daemons: time {time_ratio}, memory {memory_ratio} (goal {FLOOR_GOAL}x)")
    if ours:
        parts = ", ".join(f"{part} {spread([run.parts.get(part, 0.0) for run in ours])}" for part in ours[0].parts)
        print(f"testbed's seconds: {parts}")
    for runs in results.values():
        if runs and runs[0].sysctls:
            print("changed on the host and put back: " + "; ".join(runs[0].sysctls))


if __name__ == "__main__":
    sys.exit(main())
