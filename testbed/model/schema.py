"""The JSON Schema of the lab file, for editors: docs/lab.schema.json, and what `testbed schema` prints."""

from __future__ import annotations

import json
from typing import Any

from testbed.model.lab import API_VERSION, Lab

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER = "urn:testbed:lab:v1"


def lab_schema() -> dict[str, Any]:
    """The schema, generated from the model, with the short forms that the loader takes.

    It cannot say everything: what one part of a lab says of another is found by the loader alone.
    """
    made = Lab.model_json_schema(by_alias=True)
    head = {"$schema": DIALECT, "$id": IDENTIFIER, "title": f"testbed lab file ({API_VERSION})"}
    return head | {key: value for key, value in _tidy(made).items() if key != "title"}


def schema_text() -> str:
    """The schema as it is published: JSON, indented, with a newline at its end."""
    return json.dumps(lab_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(value: Any) -> Any:
    """What pydantic leaves out or adds: keys outside a pattern are refused, texts run on, no titles made of names."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _tidy(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
    if "patternProperties" in made:
        made["additionalProperties"] = False
    if isinstance(made.get("description"), str):
        made["description"] = _running(made["description"])
    return made


def _running(text: str) -> str:
    """A docstring's paragraphs, each on one line; its list of arguments stays a list."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(part if part.startswith("Args:") else " ".join(part.split()) for part in paragraphs)
