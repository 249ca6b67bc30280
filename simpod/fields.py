"""Field types of the specs: what a number may be, said once, read by the YAML validation.

A spec is a frozen dataclass whose fields have these types and which says
`__pydantic_config__ = STRICT`; `config` validates it, the layers below never import pydantic.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_type_hints

from annotated_types import Ge, Gt, Le

STRICT: Final[Any] = {"extra": "forbid", "allow_inf_nan": False}

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Frac = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Index = Annotated[int, Ge(0)]


@dataclass(frozen=True, slots=True)
class TaggedBy:
    """Marks a union of specs that a `Literal` field tells apart.

    `Annotated[A | B, TaggedBy("kind")]`: the validation looks at `kind` first and then complains
    about the chosen member alone.
    """

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """Describe the union to pydantic (its documented hook for markers, found by name)."""
        choices = {
            tag: handler.generate_schema(member)
            for member in get_args(source)
            for tag in get_args(get_type_hints(member)[self.key])
        }
        return {"type": "tagged-union", "discriminator": self.key, "choices": choices}
