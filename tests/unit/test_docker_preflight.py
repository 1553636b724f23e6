"""What an engine says of itself, and a container sees of itself, as words for the operator."""

from typing import Any

import pytest

from moorage.adapters.docker.preflight import check_engine, lacks_of_container, lacks_of_engine
from moorage.sandboxes.port import SandboxUnavailable

_INFO: dict[str, Any] = {
    "OSType": "linux",
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {"path": "runc"}, "strict": {"path": "/usr/bin/runsc"}},
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
}
_SAID = """\
status Seccomp:\t2
status NoNewPrivs:\t1
status CapPrm:\t0000000000000000
status CapEff:\t0000000000000000
status CapBnd:\t0000000000000000
cgroup 4:memory:/
cgroup 0::/
net lo
python works
"""


def of_engine(runtime: str | None = None, **changes: Any) -> list[str]:
    return [found.name for found in lacks_of_engine({**_INFO, **changes}, runtime=runtime)]


def of_container(said: str, runtime: str | None = None) -> list[str]:
    return [found.name for found in lacks_of_container(said, _INFO, runtime=runtime)]


def test_an_engine_that_has_everything_lacks_nothing() -> None:
    assert of_engine() == []
    assert of_container(_SAID) == []


@pytest.mark.parametrize(
    ("field", "name"), [("MemoryLimit", "memory"), ("SwapLimit", "swap"), ("PidsLimit", "pids"), ("CpuCfsQuota", "cpu")]
)
def test_a_bound_that_the_engine_does_not_keep_is_named(field: str, name: str) -> None:
    assert of_engine(**{field: False}) == [name]


def test_an_engine_without_seccomp_is_named_once_for_runc_and_not_for_gvisor() -> None:
    assert of_engine(SecurityOptions=[]) == ["seccomp"]
    assert of_engine("strict", SecurityOptions=[]) == []


def test_uids_that_the_engine_changes_are_named() -> None:
    assert of_engine(SecurityOptions=["name=seccomp,profile=default", "name=userns"]) == ["userns"]
    assert of_engine(SecurityOptions=["name=seccomp,profile=default", "name=rootless"]) == ["rootless"]


def test_gvisor_whatever_it_is_called_needs_no_seccomp_as_its_own_kernel_answers() -> None:
    without = _SAID.replace("Seccomp:\t2", "Seccomp:\t0")
    assert of_container(without, "strict") == []
    assert of_container(without, "runc") == ["seccomp"]


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("Seccomp:\t2", "Seccomp:\t0", "seccomp"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privs"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t00000000a80425fb", "capabilities"),
        ("4:memory:/", "4:memory:/docker/0123", "cgroupns"),
        ("net lo", "net lo\nnet eth0", "network"),
        ("net lo", "root writable", "read_only_root"),
    ],
)
def test_what_a_container_sees_that_it_should_not_is_named(before: str, after: str, name: str) -> None:
    assert of_container(_SAID.replace(before, after)) == [name]


def test_a_runtime_that_is_not_there_is_refused() -> None:
    check_engine(_INFO, runtime="strict")
    with pytest.raises(SandboxUnavailable, match="SANDBOX_RUNTIME=runsc"):
        check_engine(_INFO, runtime="runsc")


def test_windows_containers_are_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="Linux containers"):
        check_engine({**_INFO, "OSType": "windows"}, runtime=None)
