"""What a cluster made by kind is installed from: upstream manifests, by address or from a folder, and images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testbed.errors import Problem
from testbed.model.lab import Cluster, Kind

CALICO, METALLB = "calico-v3-crds.yaml", "metallb-frr.yaml"  # upstream's names of the files
CALICO_ADDRESS = "https://raw.githubusercontent.com/projectcalico/calico/{version}/manifests/" + CALICO
METALLB_ADDRESS = "https://raw.githubusercontent.com/metallb/metallb/{version}/config/manifests/" + METALLB
SCHEME = "https://"


def upstream(cluster: Cluster, lab_file: Path) -> tuple[tuple[str, ...], tuple[str, ...], list[Problem]]:
    """What stands before the lab's own manifests.

    Returns:
        (manifests, archives of images, problems): https addresses or absolute paths, in the order of installation.
    """
    kind = cluster.kind or Kind()
    problems: list[Problem] = []
    folder = lab_file.resolve().parent
    install = list(_installed(cluster, kind, folder, problems))
    if not kind.offline:
        calico = CALICO_ADDRESS.format(version=kind.calico)
        metallb = METALLB_ADDRESS.format(version=kind.metallb)
        return (calico, metallb, *install), (), problems
    place = cluster.origin.at("kind", "offline")
    offline = folder / kind.offline
    if not offline.is_dir():
        problems.append(Problem(f"no folder {kind.offline!r} beside the lab file", place))
        return (), (), problems
    for name in (CALICO, METALLB):
        if not (offline / name).is_file():
            version = kind.calico if name == CALICO else kind.metallb
            problems.append(Problem(f"no {name} in the folder {kind.offline!r}", place, f"it is that of {version}"))
    archives = tuple(str(path) for path in sorted(offline.glob("*.tar")))
    return (str(offline / CALICO), str(offline / METALLB), *install), archives, problems


def _installed(cluster: Cluster, kind: Kind, folder: Path, problems: list[Problem]) -> Iterator[str]:
    for index, text in enumerate(kind.install):
        place = cluster.origin.at("kind", "install", index)
        if text.startswith(SCHEME):
            if kind.offline:
                hint = "put the file beside the lab file and name it"
                problems.append(Problem(f"{text} is on the network, and offline says to do without", place, hint))
            yield text
            continue
        path = folder / text
        if Path(text).is_absolute() or not path.resolve().is_relative_to(folder):
            problems.append(Problem(f"{text!r} leads out of the lab's folder", place))
        elif not path.is_file():
            problems.append(Problem(f"no file {text!r} in the lab's folder", place, f"or write {SCHEME}…"))
        yield str(path)
