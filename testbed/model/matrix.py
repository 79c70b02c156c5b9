"""The matrix of a lab file: ways to vary the lab, and how its flows must end in every combination of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from testbed.model.base import Located

Word = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")]
Patch = dict[str, Any]
"""A JSON merge patch (RFC 7396): mappings are merged, all else is replaced, null takes a field away."""


class ManifestPatch(Located):
    """A change to one object of the cluster's manifests."""

    kind: str
    name: str
    namespace: str = ""
    patch: Patch


class Variation(Located):
    """What one value of an axis changes."""

    lab: Patch = Field(default_factory=dict, description="a merge patch for the lab file, without `flows` and `matrix`")
    manifests: tuple[ManifestPatch, ...] = ()


class Expectation(Located):
    """How flows end in the cells that `when` describes. The first entry that fits a cell holds for it."""

    when: dict[Word, Word | tuple[Word, ...]] = Field(
        default_factory=dict, description="axis → value, or any of several; an axis left out: any value"
    )
    flows: dict[str, Patch] = Field(description="flow → its `expect`, `seenAs` and so on, instead of those it has")


class Matrix(Located):
    """Cells are all combinations of one value per axis, in the order of the file; the last axis changes fastest."""

    flows: tuple[str, ...] = Field(min_length=1, description="those that are asked in each cell")
    axes: dict[Word, dict[Word, Variation]] = Field(min_length=1)
    expect: tuple[Expectation, ...] = Field(min_length=1)
