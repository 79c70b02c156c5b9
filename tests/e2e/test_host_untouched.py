"""After `down` the host is as it was before `up`, and it does not change in between either."""

from __future__ import annotations

import pytest
from conftest import EDGE, TWO_ROUTERS, own_name
from e2e_host import differences, holders, namespaces_of, now, processes, remains, snapshot

from testbed.session import Session, compiled

pytestmark = [pytest.mark.live, pytest.mark.testbed_needs("netns")]


@pytest.mark.parametrize("lab", [TWO_ROUTERS, EDGE], ids=["two-routers", "edge"])
def test_up_and_down(lab):
    name = own_name("host")
    since, before = now(), snapshot()
    with Session(name) as session:
        try:
            session.up(compiled(lab, name))
            assert differences(before, snapshot()) == []
            assert remains(name, since), "a lab that runs is not seen: the check below would prove nothing"
            session.test()
            namespaces = namespaces_of(name)
            assert len(namespaces) > 3 * len(session.plan.nodes)
        finally:
            session.down()
    assert remains(name, since) == []
    assert differences(before, snapshot()) == []
    others = {entry.lab for entry in processes()} - {"", name}
    reused = {link for other in others for link in namespaces_of(other)}  # the kernel gives numbers out again
    assert holders(namespaces - reused, others) == []
