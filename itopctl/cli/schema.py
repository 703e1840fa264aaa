"""`itopctl schema`: JSON Schema of spec files, for editors."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of a spec file, for an editor's completion and checks."""
    import json

    from itopctl.config.editor import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
