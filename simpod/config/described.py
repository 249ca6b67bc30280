"""JSON Schemas with what stands below each key in the code: its text is read when asked for.

Pydantic can do so itself (`use_attribute_docstrings`), but on import: a third of every start.
"""

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from simpod.config.validate import adapter_of


def described_schema(kind: Any) -> JsonSchemaValue:
    """The JSON Schema of a type."""
    return adapter_of(kind).json_schema(schema_generator=_Described)


class _Described(GenerateJsonSchema):
    """Properties are described by the texts below their fields."""

    def float_schema(self, schema: Any) -> JsonSchemaValue:
        """Whole bounds are integers: of Le(1) and Le(1.0), typing keeps what it has met first."""
        made = super().float_schema(schema)
        for key, bound in made.items():
            if isinstance(bound, float) and bound.is_integer():
                made[key] = int(bound)
        return made

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """Of a pydantic model."""
        return _with_texts(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        """Of a spec."""
        return _with_texts(super().dataclass_schema(schema), schema["cls"])


def _with_texts(made: JsonSchemaValue, kind: type) -> JsonSchemaValue:
    for name, text in _texts_of(kind).items():
        if name in made.get("properties", {}):
            made["properties"][name].setdefault("description", text)
    return made


def _texts_of(kind: type) -> dict[str, str]:
    """Field -> the text below it, those of the classes above included."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if "__annotations__" in vars(each) and each.__module__.startswith("simpod."):
            found |= _own_texts(each)
    return found


def _own_texts(kind: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    found = {}
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found
