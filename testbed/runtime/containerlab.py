"""The containerlab runtime: containerlab makes the containers and the links; what is in them is made as with docker.

A link that ends in a VRF, which is a namespace inside its node's container, is made in the container's own namespace
and then moved there. What a lab is found and ended by is its containers' labels, as with docker.

A node with an image of its own is started by containerlab, with the files that are bound into it (`clab_files`); from
then on it is an appliance as on the docker runtime. Commands (`exec`) are run by testbed, not by containerlab.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from testbed.errors import CommandError, DeployError, UnsupportedError
from testbed.events import Observer
from testbed.export import containerlab as export
from testbed.plan import Link, Node, Plan
from testbed.runtime import appliance, clab, clab_files, engine, image
from testbed.runtime.containers import CAPABILITIES, LAST, PROGRAM, SYSCTLS, TMPFS, UNCONFINED, Containers
from testbed.runtime.supervised import SUPERVISOR
from testbed.wait import Deadline

MARK = "containerlab"  # a label of containerlab's: the lab
FILES = "files"  # a folder in the lab's: what is bound into containers of nodes' own images
ENDED = ("exited", "dead")


class ContainerlabRuntime(Containers):
    """The lab `lab`, made by containerlab. See testbed.runtime.base.Runtime for the methods."""

    name = "containerlab"

    def __init__(self, lab: str) -> None:
        super().__init__(lab)
        self.topology = self.directory / f"{lab}.clab.yml"

    def prepare(self, observer: Observer) -> None:
        clab.check()
        super().prepare(observer)

    def open(self) -> None:
        super().open()
        shutil.copy(SUPERVISOR, self.directory / SUPERVISOR.name)

    def destroy(self) -> None:
        self.close()
        if self.topology.exists():
            self._destroy_by_containerlab()
        super().destroy()

    def _destroy_by_containerlab(self) -> None:
        """End one that still makes the lab, whose `up` was killed; then have containerlab take down what there is.

        What is left when it cannot is found by the labels, after this.
        """
        with (
            clab.alone(lambda: clab.kill(self.topology, Deadline(LAST))) as held,
            contextlib.suppress(UnsupportedError, CommandError),
        ):
            if engine.of_lab(self.lab):
                clab.destroy(self.topology, engine.home(self.lab), held)

    def program(self, nodes: Sequence[Node], links: Sequence[Link], *, fresh: bool) -> None:  # noqa: ARG002 - see below
        super().program(nodes, links, fresh=False)  # containerlab has made the links

    # --- containers and links -----------------------------------------------------------------------------------------

    def _container_name(self, node: str) -> str:
        return export.container_name(self.lab, node)

    def _provide(self, container: str) -> None:
        """The supervisor is there: containerlab has mounted it from the lab's folder."""

    def _make(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str], plan: Plan) -> None:
        """Deploy the whole lab; or, where some of it runs, add what is new to it.

        containerlab would take a link that was moved into a VRF for lost, make it again, and end the other one with its
        end. So a lab that runs is shown to it with those links alone that lead to new nodes.
        """
        self._refuse_others()
        names = {node.name for node in nodes}
        there = engine.of_lab(self.lab)
        links = export.links_between(plan)
        new = [link for link in links if not there or names & {link.a.node, link.b.node}]
        known = [node for node in plan.nodes if node.name in there]
        self._each(known, lambda node: self._start(node, there[node.name], contents))
        self._disown(plan)
        self._bring_images([node for node in nodes if node.image], contents)
        try:
            self.write_topology(plan, new)
            with clab.alone() as held:
                clab.deploy(self.topology, engine.home(self.lab), held)
        except CommandError:
            self._refuse_ended(nodes)  # it says that a namespace is gone, but not why
            raise
        finally:
            self.write_topology(plan, links)

    def _bring_images(self, nodes: Sequence[Node], contents: Mapping[tuple[str, str], str]) -> None:
        """Get the images of nodes that have their own, and write the files that are bound into them."""
        by_image: dict[str, list[Node]] = {}
        for node in nodes:
            by_image.setdefault(node.image, []).append(node)

        def bring(group: Sequence[Node]) -> None:
            appliance.provide_image(self._docker, group[0])
            asked = next((node for node in group if clab_files.need_owners(node)), None)
            owners = self._image_owners(asked) if asked else {}
            for node in group:
                clab_files.write(self._files(node.name), node, contents, owners)

        self._each(list(by_image.values()), bring)

    def _image_owners(self, node: Node) -> appliance.Owners:
        """The users that a node's image knows, asked of a container under the node's name that never runs."""
        name = self._container_name(node.name)
        made = self._docker.api.create_container(node.image, ["true"], name=name, labels=self._labels(node.name))
        try:
            return appliance.owners(self._docker, made["Id"])
        finally:
            self._docker.api.remove_container(made["Id"], v=True, force=True)

    def _refuse_ended(self, nodes: Sequence[Node]) -> None:
        """Raise DeployError when a container of a node's own image has ended by itself."""
        there = engine.of_lab(self.lab)
        for node in nodes:
            if node.image and node.name in there and there[node.name].state in ENDED:
                raise self._ended(node, there[node.name])

    def _fill(self, node: Node, container: str, contents: Mapping[tuple[str, str], str]) -> None:
        clab_files.write(self._files(node.name), node, contents, appliance.owners(self._docker, container))

    def _files(self, node: str) -> Path:
        return self.directory / FILES / node

    def _refuse_others(self) -> None:
        """Raise DeployError when a lab of that name is not ours: containerlab would take it for this one."""
        for container in engine.containers(engine.home(self.lab), f"{MARK}={self.lab}"):
            if container.labels.get(engine.LAB) != self.lab:
                raise DeployError(
                    f"containerlab runs a lab {self.lab} of somebody else (container {container.name}): "
                    "run the lab under another --name"
                )

    def _disown(self, plan: Plan) -> None:
        """Take containerlab's marks from the links of nodes that run: it ends those of its own that it is not shown."""
        from testbed.runtime import netlink
        from testbed.runtime.namespaces import Networks  # pyroute2 takes 0.15 s to import

        there = self.state()
        with Networks(
            [node for node in plan.nodes if node.name in there and not node.parent], self.network
        ) as networks:
            for network in networks.all():
                marked = network.netlink.alternative_names()
                network.netlink.apply([netlink.delete_names(index, names) for index, names in marked.items()])

    def write_topology(self, plan: Plan, links: Sequence[Link]) -> None:
        """Write the topology file: containers for all nodes of a Plan, and these links."""
        containers = {node.name: self._container(node) for node in plan.nodes if not node.parent}
        self.topology.write_text(export.topology(self.lab, containers, links, plan))

    def _container(self, node: Node) -> export.Container:
        shared = export.Container(
            image=image.NAME,
            hostname=node.hostname or node.name,
            labels=self._labels(node.name),
            sysctls=SYSCTLS | export.interface_sysctls(node.sysctls),
            capabilities=CAPABILITIES,
            security=UNCONFINED,
        )
        if node.image:
            return replace(
                shared,
                image=node.image,
                entrypoint=node.entrypoint,
                cmd=node.cmd,
                env=dict(node.env),
                binds=clab_files.binds(self._files(node.name), node),
                labels={**shared.labels, appliance.LABEL: "1"},
            )
        supervisor = self.directory / SUPERVISOR.name
        binds = [f"{supervisor}:{PROGRAM}/{supervisor.name}:ro"]
        return replace(shared, cmd=self._command(node.name), binds=binds, tmpfs=TMPFS)
