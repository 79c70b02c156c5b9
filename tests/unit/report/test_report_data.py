"""The JSON that commands print: the keys that scripts rely on."""

from __future__ import annotations

import json

from report_samples import BAD_VERDICT, FAULTY, GOOD_VERDICT, LAST, PLAN

from testbed.deploy.status import Outline
from testbed.plan.diff import diff
from testbed.report.data import doctor_data, labs_data, risen_data, status_data, verdicts_data
from testbed.report.labs import Change, Risen
from testbed.runtime.doctor import Finding


def test_verdicts() -> None:
    found = verdicts_data("small", [GOOD_VERDICT, BAD_VERDICT])
    assert (found["lab"], found["passed"], found["failed"]) == ("small", 1, 1)
    assert found["flows"][1] == {
        "flow": "web",
        "passed": False,
        "reasons": ["expected the server to see 10.10.10.10 as its client, but it saw 172.16.1.2"],
        "from": "ops",
        "to": "Service echo",
        "address": "3.3.3.1",
        "port": 80,
        "protocol": "http",
        "expected": "ok",
        "found": "ok",
        "detail": "3.3.3.1 port 80 answered HTTP/1.1 200 OK",
        "seenAs": "172.16.1.2",
        "answeredBy": "",
        "answeredOn": "",
        "status": 200,
        "latency": 1.25,
        "path": [["pe1", "mgmt"]],
    }


def test_status() -> None:
    found = json.loads(json.dumps(status_data(FAULTY, PLAN.flows, LAST)))
    assert found["asPlanned"] is False
    assert len(found["problems"]) == 6
    leaf, node, pod = found["nodes"]
    assert (leaf["parent"], pod["parent"], pod["running"], node["faults"]) == (None, "n1", False, ["eth0: missing"])
    assert leaf["interfaces"][1] == {"name": "eth0", "vrf": "mgmt", "state": "down"}
    assert leaf["processes"][1] == {
        "name": "bgpd",
        "running": False,
        "pid": 9,
        "status": -9,
        "started": 999_940.0,
        "ended": 999_999.0,
    }
    assert [(entry["established"], entry["lastError"]) for entry in found["bgpSessions"]] == [
        (True, ""),
        (False, "Socket: Connection refused"),
    ]
    assert found["services"][0]["clusterIps"] == ["10.96.0.9"]
    assert found["services"][0]["announcedBy"] == ["n1"]
    assert [(flow["name"], flow["passed"], flow["found"]) for flow in found["flows"]] == [
        ("pod-to-leaf", True, "ok"),
        ("web", False, "timeout"),
        ("never-asked", None, None),
    ]


def test_up() -> None:
    fresh = risen_data(Risen(PLAN, None, (GOOD_VERDICT,), 4.0567, {"links": 0.2}))
    counts = {key: fresh[key] for key in ("nodes", "pods", "bgpSessions", "routes", "seconds", "steps", "passed")}
    assert counts == {
        "nodes": 2,
        "pods": 1,
        "bgpSessions": 2,
        "routes": 8,
        "seconds": 4.057,
        "steps": {"links": 0.2},
        "passed": 1,
    }
    assert fresh["changes"] is None
    again = risen_data(Risen(PLAN, Change(diff(PLAN, PLAN), ("leaf1: bgpd",)), (), 1.0, {}))
    assert (again["changes"], again["restored"]) == ([], ["leaf1: bgpd"])


def test_labs_and_doctor() -> None:
    assert labs_data([Outline("edge", True, 13, 9, 5.0)]) == {
        "labs": [{"name": "edge", "whole": True, "nodes": 13, "pods": 9, "since": 5.0, "runtime": "netns"}]
    }
    note = Finding("netem", "kernel", False, False, "delay")
    fatal = Finding("veth", "kernel", False, True, "links")
    assert doctor_data([note])["ok"] is True
    assert doctor_data([note, fatal])["ok"] is False
    assert doctor_data([note])["findings"][0]["name"] == "netem"
