"""Profiles of sandboxes: what the operator may write, and what is refused at the start with a word on where."""

from pathlib import Path
from typing import Any

import pytest

from moorage.errors import InvalidInput
from moorage.sandboxes.profiles import SandboxProfile, load_profiles
from moorage.settings import Settings


def profiles(folder: Path, toml: str | None, **settings: Any) -> dict[str, SandboxProfile]:
    if toml is not None:
        settings["sandbox_profiles"] = folder / "profiles.toml"
        settings["sandbox_profiles"].write_text(toml)
    return load_profiles(Settings(**settings))


def test_the_default_profile_is_made_of_the_settings(tmp_path: Path) -> None:
    found = profiles(tmp_path, None, docker_image="own:1", sandbox_cpus=2, sandbox_memory_mb=512, sandbox_disk_mb=100)
    assert found == {
        "default": SandboxProfile(image="own:1", cpus=2, memory_mb=512, disk_mb=100, file_mb=100, max_files=100_000)
    }


def test_what_a_profile_leaves_out_is_as_in_the_default_one(tmp_path: Path) -> None:
    toml = '[profiles.large]\nmemory_mb = 8192\ncpus = 4\nimage = "big:1"\n'
    found = profiles(tmp_path, toml, sandbox_pids=99)
    assert found["large"] == SandboxProfile(name="large", image="big:1", cpus=4, memory_mb=8192, pids=99)
    assert found.keys() == {"default", "large"}


def test_an_allow_list_is_the_profile_s_own(tmp_path: Path) -> None:
    toml = '[profiles.web]\nnetwork = "allowlist"\nallow = ["PyPI.org:443", "*.example.org:8443"]\n'
    found = profiles(tmp_path, toml)
    assert found["web"].allow == ("pypi.org:443", "*.example.org:8443")
    assert found["default"].allow == ()


def test_a_profile_without_a_network_does_not_take_over_the_allow_list_of_the_default(tmp_path: Path) -> None:
    toml = '[profiles.closed]\nnetwork = "none"\n[profiles.web]\n'
    found = profiles(tmp_path, toml, sandbox_network="allowlist", sandbox_allow="pypi.org:443")
    assert found["closed"].allow == ()
    assert found["web"].allow == found["default"].allow == ("pypi.org:443",)


def test_no_file_may_be_larger_than_the_workspace(tmp_path: Path) -> None:
    assert profiles(tmp_path, "[profiles.small]\ndisk_mb = 64\nfile_mb = 500\n")["small"].file_mb == 64


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[profiles.Large]", "a name is"),
        ('[profiles."a/b"]', "a name is"),
        (f"[profiles.{'x' * 33}]", "a name is"),
        ("[profiles.default]", "SANDBOX_"),
        ("[profiles.x]\nmemory = 1", "memory"),
        ("[profiles.x]\nname = 'y'", "name"),
        ("[profiles.x]\nmemory_mb = 1", "memory_mb"),
        ("[profiles.x]\nmemory_mb = '1024'", "memory_mb"),
        ("[profiles.x]\nmemory_mb = true", "memory_mb"),
        ("[profiles.x]\ncpus = nan", "cpus"),
        ("[profiles.x]\ncpus = 0", "cpus"),
        ("[profiles.x]\npids = 1", "pids"),
        ("[profiles.x]\nimage = '--privileged'", "image"),
        ("[profiles.x]\nnetwork = 'host'", "network"),
        ("[profiles.x]\nnetwork = 'allowlist'", "allow"),
        ("[profiles.x]\nallow = ['a.org:443']", "allow"),
        ("[profiles.x]\nnetwork = 'allowlist'\nallow = ['https://a.org']", "host:port"),
        ("[profiles.x]\nnetwork = 'allowlist'\nallow = ['*:443']", "host:port"),
        ("[profiles.x]\nnetwork = 'allowlist'\nallow = ['a.org:70000']", "host:port"),
        ("[profiles.x]\nnetwork = 'allowlist'\nallow = ['a.*.org:443']", "host:port"),
        ("[profile.x]\ncpus = 1", "tables"),
        ("profiles = 3", "tables"),
        ("[profiles]\nx = 3", "tables"),
        ("[profiles.x", "not TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        profiles(tmp_path, toml)
    assert caught.value.detail.startswith("SANDBOX_PROFILES: ")
    assert said in caught.value.detail


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"SANDBOX_PROFILES: cannot read .*nowhere\.toml"):
        load_profiles(Settings(sandbox_profiles=tmp_path / "nowhere.toml"))


def test_bad_targets_of_the_default_are_the_settings_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^SANDBOX_ALLOW: must be host:port"):
        profiles(tmp_path, None, sandbox_network="allowlist", sandbox_allow="pypi.org")


def test_the_fault_of_a_setting_is_told_by_the_setting_s_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^DOCKER_IMAGE: .*; SANDBOX_MEMORY_MB: "):
        profiles(tmp_path, None, docker_image="--privileged", sandbox_memory_mb=10**9)


def test_a_key_with_a_slip_in_it_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"profile 'x': cpu: there is no such key; there are image, cpus, "):
        profiles(tmp_path, "[profiles.x]\ncpu = 2\n")
