from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.settings import Settings, SettingsError, load_settings

KEY = "k3Jf9-Qz7_Lm2Xw8Rt5Vb1Nc6Yh4Gd0Ps"


def load(**environment: str) -> Settings:
    return load_settings(environment, env_file=None)


def from_file(tmp_path: Path, text: str, **environment: str) -> Settings:
    path = tmp_path / ".env"
    path.write_text(text)
    return load_settings(environment, env_file=path)


def refusal(**environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environment)
    return caught.value.detail


def test_nothing_set_is_a_server_for_this_machine_only() -> None:
    settings = load()
    assert settings.is_loopback
    assert settings.registration_open
    assert settings.database_url is None


def test_the_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    assert from_file(tmp_path, "PORT=1000\nLLM_MODEL=a:b\n", PORT="2000").port == 2000


def test_overrides_are_strongest() -> None:
    assert load_settings({"PORT": "1"}, env_file=None, overrides={"port": 2}).port == 2


def test_a_missing_env_file_is_fine(tmp_path: Path) -> None:
    assert load_settings({}, env_file=tmp_path / "none").port == 8000


def test_an_unknown_key_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"RUN_MAX_STEP\b"):
        from_file(tmp_path, "RUN_MAX_STEP=5\n")


def test_any_unknown_key_in_the_file_is_refused_whatever_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FOO"):
        from_file(tmp_path, "foo=1\n")


def test_the_files_of_postgres_and_compose_may_share_the_env_file(tmp_path: Path) -> None:
    assert from_file(tmp_path, "POSTGRES_PASSWORD=x\nCOMPOSE_PROJECT_NAME=y\nPORT=1\n").port == 1


OUR_PREFIXES = ("APPROVALS", "AUTH", "LLM", "QUOTA", "RUN", "SANDBOX", "SESSION", "STORE", "WEBHOOK", "ZHIPUAI")


@pytest.mark.parametrize("prefix", OUR_PREFIXES)
def test_an_unknown_variable_with_one_of_our_prefixes_is_refused(prefix: str) -> None:
    assert f"{prefix}_NO_SUCH_THING" in refusal(**{f"{prefix}_NO_SUCH_THING": "1"})


def test_foreign_variables_of_the_process_are_ignored() -> None:
    assert load(PATH="/bin", HOME="/root", POSTGRES_USER="x").port == 8000


def test_an_empty_value_is_as_good_as_none() -> None:
    assert load(PORT="", DATABASE_URL="", SECRET_KEY="").port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "eighty"),
        ("RUN_MAX_STEPS", "0"),
        ("RUN_TIMEOUT_SECONDS", "0"),
        ("RUN_LEASE_SECONDS", "1.9"),
        ("RUN_LEASE_SECONDS", "601"),
        ("RUN_MAX_ATTEMPTS", "0"),
        ("RUN_MAX_ATTEMPTS", "11"),
        ("RUN_CONCURRENCY", "0"),
        ("RUN_CONCURRENCY_PER_USER", "-1"),
        ("RUN_CONCURRENCY_TOTAL", "-1"),
        ("RUN_EVENT_RETENTION_DAYS", "-1"),
        ("RUN_TIMEOUT_SECONDS", "inf"),
        ("RUN_TIMEOUT_SECONDS", "nan"),
        ("SESSION_LIFE_HOURS", "inf"),
        ("SESSION_LIFE_HOURS", "-1"),
        ("ACCESS_TOKEN_EXPIRE_HOURS", "0"),
        ("QUOTA_ACTIVE_SESSIONS", "-1"),
        ("SANDBOX", "none"),
        ("AUTH_REGISTRATION", "maybe"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.example, null"),
        ("CORS_ORIGINS", "https://a.example/"),
        ("CONTAINER_WORKSPACE_DIR", "workspace"),
        ("CONTAINER_WORKSPACE_DIR", "/"),
        ("CONTAINER_SHARED_DIR", "//"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name}: ")


def test_origins_are_split_at_commas() -> None:
    assert load(CORS_ORIGINS="https://a.example, http://b:8080,").cors_origins == ("https://a.example", "http://b:8080")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_a_loopback_server_needs_no_key(host: str) -> None:
    assert load(HOST=host).secret_key is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"])  # noqa: S104
def test_a_public_server_must_say_who_may_register_and_have_a_key(host: str) -> None:
    assert "AUTH_REGISTRATION" in refusal(HOST=host, SECRET_KEY=KEY)
    assert "SECRET_KEY" in refusal(HOST=host, AUTH_REGISTRATION="closed")
    assert not load(HOST=host, AUTH_REGISTRATION="closed", SECRET_KEY=KEY).registration_open


def test_the_weak_sandbox_on_a_public_server_must_be_asked_for_twice() -> None:
    public = {"HOST": "10.0.0.1", "AUTH_REGISTRATION": "open", "SECRET_KEY": KEY, "SANDBOX": "bubblewrap"}
    assert "SANDBOX_ALLOW_WEAK" in refusal(**public)
    assert load(**public, SANDBOX_ALLOW_WEAK="1").sandbox == "bubblewrap"


@pytest.mark.parametrize(
    "key",
    ["x", "a" * 64, "ab" * 32, "0123456789" * 2, "your-secret-key-please-change-me-now", f"ExAmPlE-{KEY}"],
)
def test_a_weak_key_is_refused_and_not_shown(key: str) -> None:
    message = refusal(SECRET_KEY=key)
    assert "SECRET_KEY" in message
    assert key not in message


def test_a_good_key_is_taken() -> None:
    found = load(SECRET_KEY=KEY).secret_key
    assert found is not None
    assert found.get_secret_value() == KEY


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    found = load(SECRET_KEY_FILE=str(tmp_path / "key")).secret_key
    assert found is not None
    assert found.get_secret_value() == KEY


def test_a_secret_may_not_come_from_two_places(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    message = refusal(SECRET_KEY=KEY, SECRET_KEY_FILE=str(tmp_path / "key"))
    assert "keep one" in message
    assert KEY not in message


def test_a_secret_file_that_is_missing_empty_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 20)
    for name in ("missing", "empty", "bytes"):
        assert refusal(LLM_API_KEY_FILE=str(tmp_path / name)).startswith("LLM_API_KEY_FILE: ")


def test_only_secrets_can_come_from_files() -> None:
    assert "LLM_MODEL_FILE" in refusal(LLM_MODEL_FILE="/x")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4))
def test_no_message_ever_holds_a_secret(secret: str) -> None:
    secret = f"s3cr3t{secret}"
    for broken in ({"PORT": "x"}, {"HOST": "0.0.0.0", "AUTH_REGISTRATION": "open"}, {"LLM_MAX_RETRIES": "99"}):  # noqa: S104
        message = refusal(DATABASE_URL=secret, LLM_API_KEY=secret, ZHIPUAI_API_KEY=secret, **broken)
        assert secret not in message


def test_settings_do_not_print_their_secrets() -> None:
    settings = load(DATABASE_URL="postgresql://u:hunter2@h/d", SECRET_KEY=KEY, LLM_API_KEY="sk-hunter2")
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert KEY not in repr(settings)


def test_the_chain_of_a_refusal_holds_no_secret_either() -> None:
    with pytest.raises(SettingsError) as caught:
        load(SECRET_KEY="weak-s3cr3t", PORT="x")
    assert caught.value.__suppress_context__


def test_webhooks_may_reach_hosts_and_networks_and_nothing_else() -> None:
    assert load(WEBHOOK_ALLOW="hooks.internal, 10.1.0.0/16").webhook_allow == ("hooks.internal", "10.1.0.0/16")
    with pytest.raises(SettingsError, match="WEBHOOK_ALLOW: must be host names"):
        load(WEBHOOK_ALLOW="https://hooks.internal/")


def test_the_secret_of_webhooks_is_long() -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET: must be at least 32 bytes"):
        load(WEBHOOK_SECRET="short")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"SANDBOX": "bubblewrap", "SANDBOX_WARM": "2"}, "SANDBOX_WARM"),
        ({"SANDBOX": "bubblewrap", "SANDBOX_RUNTIME": "runsc"}, "SANDBOX_RUNTIME"),
        ({"SANDBOX": "bubblewrap", "SANDBOX_MAX_RUNNING": "2"}, "SANDBOX_MAX_RUNNING"),
        ({"SANDBOX": "bubblewrap", "SANDBOX_PACKAGES_DIR": "/srv/wheels"}, "SANDBOX_PACKAGES_DIR"),
        ({"SANDBOX": "bubblewrap", "SANDBOX_BROKER": "/run/moorage/sandboxd.sock"}, "SANDBOX_BROKER"),
        ({"SANDBOX_ALLOW": "pypi.org:443"}, "SANDBOX_NETWORK=allowlist"),
        ({"SANDBOX_NETWORK": "allowlist"}, "SANDBOX_ALLOW"),
        ({"SANDBOX_BROKER_UIDS": "1000"}, "SANDBOX_BROKER_UIDS"),
    ],
)
def test_what_sandboxes_cannot_be_together_is_refused(settings: dict[str, str], named: str) -> None:
    assert named in refusal(**settings)


def test_a_part_of_a_list_that_is_wrong_is_told_by_the_list_s_name() -> None:
    assert refusal(SANDBOX_BROKER="/run/s.sock", SANDBOX_BROKER_UIDS="1000,al").startswith("SANDBOX_BROKER_UIDS: ")
