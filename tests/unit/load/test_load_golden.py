"""Bad manifests and the exact text of what their author is told: tests/golden/manifests/NAME.yaml, NAME.err.

`compile-*` pass the reading and are wrong only once pods are made of them, on the nodes below. In the .err files
{kinds} and {images} stand for the lists of what is supported, which grow.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.compile.kube.workloads import endpoint_slices, pods
from testbed.errors import InputError
from testbed.load.images import catalogue
from testbed.load.manifests import KINDS, load_manifests
from testbed.model.kube import Metadata, Node, NodeSpec, Service, Taint

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "manifests"
CASES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
NODES = (
    Node(api_version="v1", metadata=Metadata(name="n1")),
    Node(api_version="v1", metadata=Metadata(name="n2")),
    Node(
        api_version="v1",
        metadata=Metadata(name="n3", labels={"disk": "ssd"}),
        spec=NodeSpec(taints=(Taint(key="only", value="db", effect="NoExecute"),)),
    ),
)


def test_there_are_cases() -> None:
    assert len(CASES) >= 25
    assert sorted(path.stem for path in GOLDEN.glob("*.err")) == CASES


@pytest.mark.parametrize("name", CASES)
def test_error_text(name: str) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text()
    with pytest.raises(InputError) as caught:
        compiled(name, text)
    assert told(caught.value) == (GOLDEN / f"{name}.err").read_text()


def compiled(name: str, text: str) -> None:
    manifests = load_manifests([(f"{name}.yaml", text)])
    assert name.startswith("compile-"), "the reading finds nothing wrong"
    endpoint_slices(manifests.of(Service), pods(manifests, NODES, catalogue()), {})


def told(error: InputError) -> str:
    kinds = ", ".join(sorted({kind for _, kind in KINDS}))
    return f"{error}\n".replace(kinds, "{kinds}").replace(", ".join(catalogue().names), "{images}")
