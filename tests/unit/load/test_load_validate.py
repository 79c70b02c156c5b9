"""What authors are told about data that does not fit a model; and that models know where they were written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from testbed.errors import Position
from testbed.load.yaml import parse, suggest, validate
from testbed.model.base import Located, Model
from testbed.model.faults import FieldError
from testbed.model.kube import Service


class Leaf(Located):
    kind: Literal["leaf"]
    asn: int
    uplinks: tuple[str, ...] = ()


class Host(Located):
    kind: Literal["host"]
    gateway: IPv4Address | None = None
    port: int = Field(default=1, ge=1, le=10)


class End(Model):
    node: str
    interface: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            node, _, interface = value.partition(":")
            return {"node": node, "interface": interface} if node else {}
        return value


class Lab(Located):
    refused: ClassVar[dict[str, str]] = {"mtu": "set it on the link"}

    name: str = ""
    nodes: dict[str, Annotated[Leaf | Host, Field(discriminator="kind")]] = Field(default_factory=dict)
    either: Leaf | Host | str | None = None
    links: tuple[tuple[End, End], ...] = ()
    prefix: IPv4Network | None = None
    size: int | Literal["auto"] | tuple[int, ...] = "auto"
    ratio: float = 1.0
    on: bool = False
    word: Literal["one", "two"] = "one"
    leaf: Leaf | None = None
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is not even")
        return value

    @model_validator(mode="after")
    def _named(self) -> Lab:
        if self.name == "bad":
            raise FieldError("no good name", "name")
        return self


def told(text: str, model: type[Model] = Lab, name: str | None = "lab") -> list[str]:
    (document,) = parse(text, "f")
    instance, problems = validate(model, document, name)
    assert (instance is None) == bool(problems)
    return [str(problem) for problem in sorted(problems, key=lambda problem: problem.position or Position("", 0, 0))]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("nme: x", ["f:1:1: unknown field 'nme' in lab (did you mean name?)"]),
        ("mtu: 9000", ["f:1:1: 'mtu' in lab is not supported (set it on the link)"]),
        ("name: 5", ["f:1:7: lab.name: expected a string, found 5 (put quotes around it)"]),
        ("name:", ["f:1:1: lab.name: expected a string, found nothing"]),
        ("even: 3", ["f:1:7: lab.even: 3 is not even"]),
        ("name: bad", ["f:1:7: lab.name: no good name"]),
        ("nodes: {a: {kind: leaf}}", ["f:1:9: 'asn' is missing in lab.nodes.a"]),
        ("nodes: {a: {kind: laef, asn: 1}}", ["f:1:19: unknown kind 'laef' in lab.nodes.a (did you mean leaf?)"]),
        ("nodes: {a: {asn: 1}}", ["f:1:9: 'kind' is missing in lab.nodes.a (choose from leaf, host)"]),
        ("nodes: [a]", ["f:1:1: lab.nodes: expected a mapping, found a list"]),
        (
            "nodes: {a b: {kind: host, prot: 1}}",
            ["f:1:27: unknown field 'prot' in lab.nodes['a b'] (did you mean port?)"],
        ),
        ("nodes: {a: {kind: host, port: 11}}", ["f:1:31: lab.nodes.a.port: must be at most 10, found 11"]),
        ("nodes: {a: {kind: host, gateway: x}}", ["f:1:34: lab.nodes.a.gateway: expected an IPv4 address, found 'x'"]),
        ("either: {kind: leaf, asn: x}", ["f:1:27: lab.either.asn: expected an integer, found 'x'"]),
        ("either: {kind: host, prt: 1}", ["f:1:22: unknown field 'prt' in lab.either (did you mean port?)"]),
        ("either: 5", ["f:1:9: lab.either: expected a mapping or a string, found 5 (put quotes around it)"]),
        (
            "links: [[{nod: a}, b]]",
            [
                "f:1:10: 'node' is missing in lab.links[0][0]",
                "f:1:11: unknown field 'nod' in lab.links[0][0] (did you mean node?)",
            ],
        ),
        ("links: [['', b]]", ["f:1:10: 'node' is missing in lab.links[0][0]"]),
        ("links: [[a, b, c]]", ["f:1:9: lab.links[0]: must have at most 2 items, found a list"]),
        ("prefix: 10.0.0.1/24", ["f:1:9: lab.prefix: expected an IPv4 prefix, found '10.0.0.1/24'"]),
        ("size: atuo", ["f:1:7: lab.size: expected an integer or 'auto' or a list, found 'atuo'"]),
        ("size: [1, x]", ["f:1:11: lab.size[1]: expected an integer, found 'x'"]),
        ('size: "5"', ["f:1:7: lab.size: expected an integer or 'auto' or a list, found '5' (remove the quotes)"]),
        ('ratio: "1.5"', ["f:1:8: lab.ratio: expected a number, found '1.5'"]),
        ("ratio: yes", ["f:1:8: lab.ratio: expected a number, found true"]),
        ("on1: 1", ["f:1:1: unknown field 'on1' in lab (did you mean on?)"]),
        ('"on": 1', ["f:1:7: lab.on: expected true or false, found 1"]),
        ("even: yes", ["f:1:7: lab.even: expected an integer, found true"]),
        ("even: 2.0", ["f:1:7: lab.even: expected an integer, found 2.0"]),
        ("word: tow", ["f:1:7: lab.word: unknown value 'tow' (did you mean two?)"]),
        ("word: [one]", ["f:1:1: lab.word: expected 'one' or 'two', found a list"]),
        ("[a]", ["f:1:1: lab: expected a mapping, found a list"]),
        (f"even: {'x' * 100}", [f"f:1:7: lab.even: expected an integer, found '{'x' * 56}..."]),
    ],
)
def test_messages(text: str, problems: list[str]) -> None:
    assert told(text) == problems


def test_everything_at_once() -> None:
    text = 'nme: x\nname: 5\nsize: "5"\neven: 3\nnodes:\n  a: {kind: leaf, asn: "1"}\n  b: {kind: host, port: 0}\n'
    assert [line.partition(": ")[0] for line in told(text)] == ["f:1:1", "f:2:7", "f:3:7", "f:4:7", "f:6:24", "f:7:25"]


def test_names_of_documents() -> None:
    assert told("kind: Service\nspec: 3", Service, None)[-1] == "f:2:7: Service.spec: expected a mapping, found 3"
    assert told("word: x", Lab, None) == ["f:1:7: Lab.word: unknown value 'x' (choose from one, two)"]
    assert told("word: x", Lab, "") == ["f:1:7: word: unknown value 'x' (choose from one, two)"]
    assert told("[]", Lab, "") == ["f:1:1: the document: expected a mapping, found an empty list"]


def test_field_names_of_python_are_unknown() -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {external_name: x}\n"
    assert told(text, Service) == ["f:4:8: unknown field 'external_name' in lab.spec (did you mean externalName?)"]


def test_origins() -> None:
    text = "name: x\nnodes:\n  a:\n    kind: leaf\n    asn: 1\neither: {kind: host}\nlinks: [[a:1, {node: b}]]\n"
    (document,) = parse(text, "f")
    lab, problems = validate(Lab, document)
    assert lab is not None
    assert not problems
    assert lab.origin.at("nodes", "a", "asn") == Position("f", 5, 10)
    leaf = lab.nodes["a"]
    assert isinstance(leaf, Leaf)
    assert leaf.origin.at() == Position("f", 3, 3)
    assert leaf.origin.at("asn") == Position("f", 5, 10)
    assert leaf.origin.at("uplinks") == Position("f", 3, 3)
    assert isinstance(lab.either, Host)
    assert lab.either.origin.at("kind") == Position("f", 6, 16)
    assert lab.links == ((End(node="a", interface="1"), End(node="b")),)


def test_defaults_have_no_origin() -> None:
    class Holder(Located):
        leaf: Leaf = Leaf(kind="leaf", asn=1)

    (document,) = parse("{}", "f")
    holder, _ = validate(Holder, document)
    assert holder is not None
    assert holder.origin.at() == Position("f", 1, 1)
    assert holder.leaf.origin.at() is None


@pytest.mark.parametrize(
    ("word", "choices", "hint"),
    [
        ("externaltrafficpolicy", ["type", "externalTrafficPolicy"], "did you mean externalTrafficPolicy?"),
        ("LEAF1", ["leaf1", "leaf2"], "did you mean leaf1?"),
        ("x", ["a", "", "b", "a"], "choose from a, b"),
        ("x", [], ""),
        ("?", [str(number) for number in range(20)], "choose from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..."),
    ],
)
def test_suggest(word: str, choices: list[str], hint: str) -> None:
    assert suggest(word, choices) == hint
