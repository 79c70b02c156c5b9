"""How a model's validator says which of its fields is wrong."""

from __future__ import annotations


class FieldError(ValueError):
    """Something is wrong with one field of the model whose validator raises this.

    Args:
        message: what is wrong, in the user's words.
        path: the field, from the model on, with the names it has in the file; what is reported stands there.
    """

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path
