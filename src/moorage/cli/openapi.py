"""`moorage openapi`: the API's description, without a server."""

import typer

from moorage_api.openapi_file import openapi_text


def openapi() -> None:
    """Print the API's description (OpenAPI) as a server shows it at /openapi.json, sorted and indented."""
    typer.echo(openapi_text(), nl=False)
