"""How containers are described, and when one counts as made otherwise; what the seccomp profile leaves out."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import moorage.adapters.docker.container as container
from moorage.adapters.docker.container import DIGEST_LABEL, ContainerSettings, container_body
from moorage.sandboxes.port import Folder
from moorage.sandboxes.profiles import SandboxProfile

_DERIVE = Path(__file__).parents[2] / "scripts" / "seccomp-profile"
_SETTINGS = ContainerSettings("test")
_PROFILE = SandboxProfile()

type Json = dict[str, Any]


def body(
    settings: ContainerSettings = _SETTINGS,
    profile: SandboxProfile = _PROFILE,
    *,
    image_id: str = "sha256:1",
    workspace: str = "/srv/ws/alice/one",
    shared: str = "/srv/shared/alice",
) -> Json:
    return container_body(
        settings,
        profile,
        image_id=image_id,
        workspace=Folder(Path("/ws"), workspace),
        shared=Folder(Path("/shared"), shared),
    )


def digest(made: Json) -> str:
    return made["Labels"][DIGEST_LABEL]


@pytest.mark.parametrize(
    "other",
    [
        body(profile=replace(_PROFILE, memory_mb=2048)),
        body(profile=replace(_PROFILE, cpus=2)),
        body(profile=replace(_PROFILE, file_mb=1)),
        body(image_id="sha256:2"),
        body(ContainerSettings("test", runtime="runsc")),
        body(ContainerSettings("test", packages="/srv/wheels")),
        body(shared="/srv/shared/bob"),
        body(workspace="/elsewhere/alice/one"),
    ],
)
def test_what_would_be_made_otherwise_has_another_digest(other: Json) -> None:
    assert digest(other) != digest(body())


@pytest.mark.parametrize(
    ("before", "after"),
    [("/srv/ws/alice/.spare-1", "/srv/ws/alice/one"), (r"C:\ws\alice\.spare-1", r"C:\ws\alice\one")],
)
def test_a_container_that_stood_ready_is_as_good_as_the_thread_s_own(before: str, after: str) -> None:
    assert digest(body(workspace=before)) == digest(body(workspace=after))


def test_without_a_folder_of_packages_nothing_says_where_some_are() -> None:
    made = body()
    assert not [value for value in made["Env"] if value.startswith(("PIP_", "UV_"))]
    assert [mount["Target"] for mount in made["HostConfig"]["Mounts"]] == ["/workspace", "/shared"]


def test_a_folder_of_packages_is_all_that_may_be_installed_from() -> None:
    made = body(ContainerSettings("test", packages="/srv/wheels"))
    assert {"PIP_NO_INDEX=1", "PIP_FIND_LINKS=/opt/packages", "UV_OFFLINE=1"} <= set(made["Env"])
    mount = next(mount for mount in made["HostConfig"]["Mounts"] if mount["Target"] == "/opt/packages")
    assert (mount["Source"], mount["ReadOnly"]) == ("/srv/wheels", True)


def derived(tmp_path: Path, default: Json) -> Json:
    path = tmp_path / "default.json"
    path.write_text(json.dumps(default))
    done = subprocess.run([sys.executable, str(_DERIVE), str(path)], capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def names(profile: Json, **rule: Any) -> set[str]:
    """The system calls of the rules that are exactly so, but for their names."""
    return {
        name
        for found in profile["syscalls"]
        if {key: value for key, value in found.items() if key != "names"} == rule
        for name in found["names"]
    }


def test_derived_from_a_default_that_allows_all_of_it_ours_does_not(tmp_path: Path) -> None:
    forbidden = ["io_uring_setup", "keyctl", "bpf", "userfaultfd", "perf_event_open", "unshare", "setns", "mount"]
    default = {"syscalls": [{"names": ["read", "socket", "clone3", *forbidden], "action": "SCMP_ACT_ALLOW"}]}
    assert names(derived(tmp_path, default), action="SCMP_ACT_ALLOW") == {"read"}


def test_two_requests_are_refused_and_whatever_differs_from_them_in_a_bit_is_not(tmp_path: Path) -> None:
    rules = [rule["args"][0] for rule in derived(tmp_path, {"syscalls": []})["syscalls"] if rule["names"] == ["ioctl"]]

    def allowed(request: int) -> bool:
        return any(request & rule["value"] == rule["valueTwo"] for rule in rules)

    for refused in (0x401C5820, 0x40086602):
        assert not allowed(refused)
        assert not allowed(refused | 5 << 32)
        assert all(allowed(refused ^ 1 << bit) for bit in range(32))


def test_nothing_is_allowed_on_the_ground_of_a_capability(tmp_path: Path) -> None:
    rule = {"names": ["reboot2"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_BOOT"]}}
    assert "reboot2" not in json.dumps(derived(tmp_path, {"syscalls": [rule]}))


def test_arguments_and_conditions_of_the_default_are_kept(tmp_path: Path) -> None:
    args = [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}]
    rules = [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": args, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}},
    ]
    found = derived(tmp_path, {"syscalls": rules})
    assert names(found, action="SCMP_ACT_ALLOW", args=args) == {"clone"}
    assert names(found, action="SCMP_ACT_ALLOW", includes={"arches": ["amd64"]}) == {"arch_prctl"}
    assert "s390" not in json.dumps(found)


def test_the_profile_that_is_sent_is_one_that_the_script_would_make(tmp_path: Path) -> None:
    """Derived again it is itself: nothing that must go has been put back by hand."""
    shipped = json.loads(Path(container.__file__).with_name("seccomp.json").read_text())
    shipped_others = [rule for rule in shipped["syscalls"] if not {"socket", "socketpair", "clone3"} & {*rule["names"]}]
    again = derived(tmp_path, {"syscalls": shipped_others})
    assert again == shipped
    sent = next(option for option in body()["HostConfig"]["SecurityOpt"] if option.startswith("seccomp="))
    assert json.loads(sent.removeprefix("seccomp=")) == shipped


def test_sockets_of_four_families_are_allowed_and_clone3_is_said_not_to_exist() -> None:
    shipped = json.loads(Path(container.__file__).with_name("seccomp.json").read_text())
    sockets = [rule["args"] for rule in shipped["syscalls"] if rule["names"] == ["socket"]]
    assert [args[0]["value"] for args in sockets] == [1, 2, 10, 16]
    assert names(shipped, action="SCMP_ACT_ERRNO", errnoRet=38) == {"clone3"}
