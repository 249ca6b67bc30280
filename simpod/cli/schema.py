"""`simpod schema`: JSON Schemas for editors."""

from enum import StrEnum
from typing import Annotated, Final

import typer

EPILOG: Final = """Example:

simpod schema experiment > experiment.schema.json

An editor completes and checks a YAML file whose first line is

# yaml-language-server: $schema=experiment.schema.json"""


class SchemaKind(StrEnum):
    """Files that have a schema."""

    EXPERIMENT = "experiment"
    MODEL = "model"
    HARDWARE = "hardware"


def schema_command(
    kind: Annotated[SchemaKind, typer.Argument(help="Which file.")] = SchemaKind.EXPERIMENT,
) -> None:
    """Print the JSON Schema of an experiment, a model or a hardware profile."""
    from simpod.config import schema_text

    typer.echo(schema_text(kind.value), nl=False)
