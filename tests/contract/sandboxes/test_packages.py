"""The packages that an operator lets agents install: a folder of wheels, and nothing else."""

import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.contract.sandboxes.dock import Dock, open_dock

from moorage.ids import ThreadId


def wheel(folder: Path, name: str) -> None:
    """A package of one module, which says hello."""
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "print('hello')\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")


@pytest.fixture(scope="module")
async def dock(tmp_path_factory: pytest.TempPathFactory, public_tmp_path: Path) -> AsyncGenerator[Dock]:
    allowed = public_tmp_path / "packages"
    allowed.mkdir(mode=0o755)
    wheel(allowed, "greeting")
    async with open_dock(tmp_path_factory.mktemp("packages"), packages=str(allowed)) as dock:
        yield dock


@pytest.fixture
async def thread_id(dock: Dock) -> ThreadId:
    thread_id = dock.new_thread()
    await dock.provider.ensure(thread_id, profile="default")
    return thread_id


INSTALLERS = pytest.mark.parametrize("installer", ["pip", "uv pip"])


@INSTALLERS
async def test_a_package_in_the_folder_can_be_installed_and_used(
    dock: Dock, thread_id: ThreadId, installer: str
) -> None:
    installed = await dock.run(thread_id, f"{installer} install greeting", time_limit=60)
    used = await dock.run(thread_id, "python3 -m greeting")

    assert installed.exit_code == 0, installed.output
    assert used.output == "hello\n"


@INSTALLERS
async def test_any_other_package_is_refused_in_words(dock: Dock, thread_id: ThreadId, installer: str) -> None:
    result = await dock.run(thread_id, f"{installer} install cowsay", time_limit=60)

    assert result.exit_code != 0
    assert "cowsay" in result.output
    assert "No matching distribution found" in result.output or "network was disabled" in result.output


async def test_a_virtual_environment_takes_them_too(dock: Dock, thread_id: ThreadId) -> None:
    result = await dock.run(
        thread_id,
        "uv venv -q && uv pip install -q greeting && .venv/bin/python -m greeting"
        " && python3 -m venv other && other/bin/pip install -q greeting && other/bin/python -m greeting;"
        " python3 -m greeting",
        time_limit=60,
    )

    assert result.output.splitlines()[:2] == ["hello", "hello"]
    assert "No module named greeting" in result.output


async def test_nobody_can_add_to_the_folder_or_to_the_system_s_python(dock: Dock, thread_id: ThreadId) -> None:
    result = await dock.run(
        thread_id,
        'touch /opt/packages/mine.whl; touch "$(python3 -c "import pandas; print(pandas.__path__[0])")/mine.py"',
    )

    assert result.output.count("Read-only file system") == 2


async def test_what_a_thread_installs_is_its_own(dock: Dock, thread_id: ThreadId) -> None:
    await dock.run(thread_id, "pip install greeting", time_limit=60)
    other = dock.new_thread()
    await dock.provider.ensure(other, profile="default")

    result = await dock.run(other, "python3 -m greeting")

    assert "No module named greeting" in result.output
