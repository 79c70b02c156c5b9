"""The one place that finds and loads the templates in `configs/`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PACKAGE = Path(__file__).resolve().parent


def configs() -> Path:
    """The folder `configs`: in the installed package, else beside it in the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


@cache
def environment() -> Environment:
    """The templates of the project: `environment().get_template("bird/bird.cfg.j2")`.

    A name that a template uses and is not given is an error (jinja2.UndefinedError).
    """
    return Environment(  # noqa: S701 - the texts are configuration files, not HTML
        loader=FileSystemLoader(configs()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def pages() -> Environment:
    """The same for HTML: what a template is given is escaped, unless it is Markup."""
    return environment().overlay(autoescape=True)
