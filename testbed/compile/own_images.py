"""Nodes of a lab file with an image of their own, which on a container runtime runs and starts its programs itself.

On the netns runtime an image is what the catalogue maps it to: for a router the machine's own FRR, for a host the
catalogue's program.
"""

from __future__ import annotations

from dataclasses import replace

from testbed import plan
from testbed.compile import clab_frr
from testbed.errors import Problem
from testbed.load.explain import suggest
from testbed.model.images import Catalogue, normalise
from testbed.model.lab import Host, Router


def with_router_image(
    node: plan.Node, model: Router, images: Catalogue, *, containers: bool
) -> tuple[plan.Node, list[Problem]]:
    """A router as its image runs it, and what the image cannot do."""
    if model.image is None:
        return node, []
    problems = _starts_frr(model.image, model, images)
    if node.vrfs:
        message = f"{node.name} has VRFs ({', '.join(node.vrfs)}), which an image of its own does not make"
        problems.append(Problem(message, model.origin.at("image"), "remove image: the project's own has them"))
    if model.nat:
        message = f"{node.name} has nat, for which an image of its own may lack the programs"
        problems.append(Problem(message, model.origin.at("image"), "remove image: the project's own has them"))
    if not containers or problems:
        return node, problems
    names = [process.name for process in node.processes]
    own = {f"/etc/frr/{name}.conf" for name in names}
    texts = [file.content for file in node.files if file.path in own and isinstance(file.content, str)]
    files = [file for file in node.files if file.path not in own and not file.path.startswith("/etc/frr/")]
    daemons = "".join(f"{name}=yes\n" for name in names) + "vtysh_enable=yes\n"
    files += [
        plan.File(clab_frr.LIST, daemons, 0o640, "frr"),
        plan.File(clab_frr.CONFIG, "!\n".join(texts), 0o640, "frr"),
        plan.File("/etc/frr/vtysh.conf", "service integrated-vtysh-config\n", 0o640, "frr"),
    ]
    made = replace(
        node,
        image=model.image,
        directories=(),  # the image has those of its FRR
        files=tuple(files),
        processes=tuple(replace(process, files=(), by_image=True) for process in node.processes),
    )
    return made, []


def _starts_frr(reference: str, model: Router, images: Catalogue) -> list[Problem]:
    able = [name for name in images.names if (entry := images.find(name)) and "frr" in entry.capabilities]
    at = model.origin.at("image")
    try:
        entry = images.find(normalise(reference))
    except ValueError as error:
        return [Problem(str(error), at)]
    if entry is None:
        hint = f"{suggest(normalise(reference), able)}; an entry of images: with capabilities: [frr] says so of another"
        return [Problem(f"whether the image {reference!r} starts FRR is not known", at, hint)]
    if "frr" not in entry.capabilities:
        return [Problem(f"the image {reference!r} does not start FRR", at, suggest("", able))]
    return []


def with_host_image(node: plan.Node, model: Host, *, containers: bool) -> plan.Node:
    """A host as its image runs it, where it shall be a container of it."""
    if not (containers and model.container and model.image):
        return node
    return replace(node, image=model.image, entrypoint=model.command, env=tuple(model.env.items()))
