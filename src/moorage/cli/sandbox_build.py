"""`moorage sandbox build`: the image that sandboxes start from, made on this machine's engine."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from moorage.cli.terminal import EXIT_FAILED, EXIT_MISSING, settings_or_exit

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_HELP = (
    "Without a registry: --base names a Debian-based image that is here. Without a package index: --wheels. "
    "In a network with certificates of its own: --certificates."
)


def build(
    base: Annotated[
        str | None,
        typer.Option(help="The image to build on, Debian-based. Not set: the public Python image.", show_default=False),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="The image's name. Not set: DOCKER_IMAGE.", show_default=False)
    ] = None,
    certificates: Annotated[
        Path | None,
        typer.Option(
            help="A bundle of certificates that this network needs. It does not become part of the image.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option(
            help="A folder with the packages of its requirements.txt, for a machine without a package index.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Build the sandbox image: Python with the usual packages, git, ripgrep, node and uv. Some minutes, 650 MB.

    Servers that run take it for sandboxes that they make from now on.

    Exit codes: 0 built; 1 failed; 2 wrong usage; 3 the docker command is not installed.
    """
    tag = tag or settings_or_exit().docker_image
    if shutil.which("docker") is None:
        typer.secho("moorage: the docker command is not installed", err=True, fg="red")
        raise typer.Exit(EXIT_MISSING)
    with (
        tempfile.TemporaryDirectory(prefix="moorage-image-") as folder,
        as_file(files("moorage.sandboxes") / "image") as recipe,
    ):
        context = Path(folder) / "context"
        shutil.copytree(recipe, context)
        if certificates:
            shutil.copyfile(certificates, context / "ca-bundle.crt")
        if wheels:
            shutil.copytree(wheels, context / "wheels")
        command = ["docker", "build", "--tag", tag, *_arguments(base), str(context)]
        done = subprocess.run(command, check=False)  # noqa: S603 -- the operator's own words, and no shell
    if done.returncode != 0:
        typer.secho(f"moorage: the build failed, see above. {_HELP}", err=True, fg="red")
        raise typer.Exit(EXIT_FAILED)
    typer.echo(f"Built {tag}.")


def _arguments(base: str | None) -> Iterator[str]:
    if base:
        yield from ("--build-arg", f"BASE={base}", "--label", f"moorage.base={base}")
    for name in _PROXIES:
        if os.environ.get(name):
            yield from ("--build-arg", name)
