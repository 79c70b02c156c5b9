"""The image catalogue: names, the built-in entries, a lab's own, mistakes."""

from __future__ import annotations

import pytest

from testbed.errors import InputError
from testbed.load.images import builtin_images, catalogue, load_images
from testbed.model.images import ImageFile, normalise
from testbed.plan import File

DIGEST = "@sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("nginx", "nginx"),
        ("nginx:1.27", "nginx"),
        (f"nginx:1.27{DIGEST}", "nginx"),
        ("library/nginx", "nginx"),
        ("docker.io/library/nginx", "nginx"),
        ("docker.io/nginx:latest", "nginx"),
        ("index.docker.io/library/nginx", "nginx"),
        ("registry.k8s.io/e2e-test-images/agnhost:2.39", "e2e-test-images/agnhost"),
        ("localhost/echo", "echo"),
        ("localhost:5000/echo:1", "echo"),
        ("registry:5000/a/b_c/d-e:1", "a/b_c/d-e"),
        (f"lscr.io/linuxserver/openssh-server{DIGEST}", "linuxserver/openssh-server"),
        ("bitnami/nginx", "bitnami/nginx"),
    ],
)
def test_names(reference: str, name: str) -> None:
    assert normalise(reference) == name


@pytest.mark.parametrize(
    "reference", ["", "Nginx", "nginx:", "nginx:a b", "a//b", "nginx@sha256:12", "-x", "a b", "x/"]
)
def test_what_is_no_name(reference: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an image"):
        normalise(reference)


def test_builtin_entries() -> None:
    known = catalogue()
    wanted = ["nginx", "busybox", "linuxserver/openssh-server", "openssh-server", "sshd", "echo", "agnhost"]
    wanted += ["e2e-test-images/agnhost", "echoserver", "ingress-nginx/controller", "coredns/coredns"]
    assert [name for name in wanted if known.find(name) is None] == []
    roles = {name: image.role for name in ("echo", "sshd", "coredns", "nginx") if (image := known.find(name))}
    assert roles == {"echo": "echo", "sshd": "ssh", "coredns": "dns", "nginx": ""}
    for image in known.images:
        programs = {(image.command or image.args or image.requires)[:1], image.requires[:1]} - {()}
        assert all(program[0].startswith("/") or image.multicall for program in programs)
        assert bool(image.requires) == bool(image.packages)
        assert not (image.command or image.args) or image.requires


def test_every_named_text_is_there() -> None:
    known = catalogue()
    named = 0
    for image in known.images:
        for entry in image.files.values():
            if isinstance(entry, ImageFile) and (entry.template or entry.program):
                kind = "template" if entry.template else "program"
                named += 1
                assert known.texts[kind, entry.template or entry.program or ""]
    assert named >= 4
    assert isinstance(File("/x", known.texts["program", "echo.py"]).content, str)


def test_a_labs_entry_wins() -> None:
    (own,) = load_images("images: [{names: [nginx], command: [/bin/true]}]", "lab.yaml")
    assert catalogue([own]).find("nginx") is own
    assert catalogue().find("nginx") in builtin_images()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("images: [{names: []}]", "f:1:11: images[0].names: must have at least 1 item, found an empty list"),
        (
            "images: [{names: [docker.io/x]}]",
            "f:1:19: images[0].names[0]: write 'x': names have no registry, tag or digest",
        ),
        ("images: [{names: [x]}, {names: [z, x]}]", "f:1:36: the image 'x' is there twice"),
        (
            "images: [{names: [x], command: [sh]}]",
            "f:1:10: images[0]: the program 'sh' must be given by its absolute path",
        ),
        ("images: [{names: [x], rle: dns}]", "f:1:23: unknown field 'rle' in images[0] (did you mean role?)"),
        (
            "images: [{names: [x], files: {/a: {content: x, secret: {name: a, part: public}}}}]",
            "f:1:31: images[0].files['/a']: exactly one of content, template, program, secret is needed",
        ),
        (
            "images: [{names: [x], files: {a: x}}]",
            "f:1:31: images[0].files.a: 'a' is not an absolute path without '..' and ':'",
        ),
        (
            "images: [{names: [x], arguments: {options: {a: {}}}}]",
            "f:1:45: images[0].arguments.options.a: exactly one of argv, handOn, withoutEffect is needed",
        ),
        (
            "images: [{names: [x], arguments: {defaults: {a: b}}}]",
            "f:1:23: images[0].arguments: 'defaults' names options that are not among 'options': a",
        ),
        ("", "f: expected one document with 'images', found 0"),
    ],
)
def test_mistakes(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_images(text, "f")
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{template: no/such.j2}", "f:1:46: there is no template 'no/such.j2'"),
        ("{template: ../pyproject.toml}", "f:1:46: there is no template '../pyproject.toml'"),
        ("{program: ../errors.py}", "f:1:45: there is no program '../errors.py'"),
        ("{program: __init__.py}", "f:1:45: there is no program '__init__.py'"),
    ],
)
def test_texts_that_are_not_there(entry: str, told: str) -> None:
    own = load_images(f"images: [{{names: [x], files: {{/a: {entry}}}}}]", "f")
    with pytest.raises(InputError) as caught:
        catalogue(own)
    assert str(caught.value) == told
