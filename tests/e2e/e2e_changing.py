"""A running lab whose files the tests edit."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from conftest import assert_flows, own_name

from testbed.plan.diff import PlanDiff
from testbed.session import Session, compiled


@dataclass
class ChangingLab:
    """A running lab, and the copy of its folder that it is made from."""

    session: Session
    folder: Path

    def edit(self, file: str, old: str, new: str) -> None:
        """Put `new` for `old`, which must stand in the file once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def up(self) -> PlanDiff:
        """Apply the files as they are now."""
        return self.session.up(compiled(str(self.folder), self.session.name))


Changing = TypeVar("Changing", bound=ChangingLab)


@contextlib.contextmanager
def brought_up(kind: type[Changing], lab: str, topic: str, folder: Path) -> Iterator[Changing]:
    """A copy of a lab's folder at `folder`, up under a name of its own for the length of the block."""
    shutil.copytree(lab, folder)
    with Session(own_name(topic)) as session:
        try:
            session.up(compiled(str(folder), session.name))
            yield kind(session, folder)
        finally:
            session.down()


@contextlib.contextmanager
def as_shipped(changing: Changing) -> Iterator[Changing]:
    """The lab as its files say at first, all flows passing; afterwards the files are put back."""
    originals = {path: path.read_bytes() for path in changing.folder.rglob("*.yaml")}
    changing.up()
    assert_flows(changing.session)
    yield changing
    for path, content in originals.items():
        path.write_bytes(content)
