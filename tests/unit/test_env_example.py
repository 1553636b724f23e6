"""`.env.example` is the list of settings that the server's own messages point to: it must be whole and true."""

import re
from pathlib import Path

import pytest

from moorage.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
FOREIGN = ("POSTGRES_", "COMPOSE_")


def entries() -> list[tuple[str, str]]:
    """The names and values in the file's order, commented out or not."""
    return re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def known_names() -> set[str]:
    """Each setting, and for each secret the name that takes a file."""
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    return {name.upper() for name in Settings.model_fields} | {f"{name.upper()}_FILE" for name in secrets}


def test_each_setting_appears_exactly_once() -> None:
    names = [name for name, _ in entries() if not name.startswith(FOREIGN)]
    assert sorted(names) == sorted(known_names())


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default])
def test_a_setting_with_a_default_shows_it(name: str) -> None:
    assert dict(entries())[name.upper()] != ""


def test_the_file_as_it_is_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_settings({}, env_file=copy) == Settings()


def test_the_values_shown_are_the_defaults(tmp_path: Path) -> None:
    uncommented = tmp_path / ".env"
    uncommented.write_text("".join(f"{name}={value}\n" for name, value in entries()), encoding="utf-8")
    assert load_settings({}, env_file=uncommented) == Settings()


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_a_readme_names_every_setting(readme: str) -> None:
    text = (EXAMPLE.parent / readme).read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in text] == []


def test_both_readmes_run_the_same_commands() -> None:
    english, chinese = (
        re.findall(
            r"^```bash\n(.*?)^```", (EXAMPLE.parent / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for name in ("README.md", "README.zh-CN.md")
    )
    assert english == chinese
