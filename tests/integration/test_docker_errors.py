"""What a real engine refuses, as users are told: without the paths of its machine."""

import secrets

import pytest
from structlog.testing import capture_logs
from tests.contract.sandboxes.dock import IMAGE

from moorage.adapters.docker.engine import Engine
from moorage.sandboxes.port import SandboxUnavailable


def test_a_path_in_the_engines_words_is_for_the_log_only() -> None:
    engine, name = Engine(connections=1), f"moorage-test-{secrets.token_hex(4)}"
    device = {"PathOnHost": "/dev/moorage-none", "PathInContainer": "/dev/one", "CgroupPermissions": "r"}
    engine.create(name, {"Image": IMAGE, "HostConfig": {"Devices": [device], "NetworkMode": "none"}})
    try:
        with capture_logs() as logs, pytest.raises(SandboxUnavailable) as refused:
            engine.start(name)
    finally:
        engine.remove(name)
        engine.close()
    assert "The Docker engine refused: " in refused.value.detail
    assert "moorage-none" not in refused.value.detail
    assert "/dev/moorage-none" in logs[0]["reason"]
