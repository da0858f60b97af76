from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from domain.errors import CATALOGUE, Invalid
from settings import CONFIG_FILE, VARIABLES, Settings, leaves, load_settings, required

SEED = """
service:
  port: 8010
  name: memmie-studio

storage:
  blobs:
    backend: s3  # or filesystem
    bucket: memmie-studio-blobs
  metadata:
    backend: postgres

providers:
  max_concurrent: 10
  timeout: 30s
  retry_policy:
    max_attempts: 3
    backoff: exponential

events:
  backend: nats
  topics:
    blob_created: studio.blob.created
    blob_updated: studio.blob.updated
    blob_deleted: studio.blob.deleted
    delta_applied: studio.delta.applied

workflow:
  temporal_host: localhost:7233
  namespace: memmie-studio
  task_queue: studio-providers
"""
"""The seed's config/studio.yaml, as it stands there."""


def config(folder: Path, text: str) -> dict[str, str]:
    path = folder / "studio.yaml"
    path.write_text(text)
    return {"STUDIO_CONFIG": str(path)}


def refused(env: dict[str, str]) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load_settings(env)
    assert caught.value.problem_code == "invalid_settings"
    assert {fault.code for fault in caught.value.faults} <= set(CATALOGUE)
    return caught.value


def value_at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def test_the_seeds_file_is_read_as_it_is(tmp_path: Path) -> None:
    settings = load_settings(config(tmp_path, SEED))
    assert settings.service.port == 8010
    assert settings.storage.blobs.bucket == "memmie-studio-blobs"
    assert settings.providers.timeout == timedelta(seconds=30)
    assert settings.providers.retry_policy.max_attempts == 3
    assert settings.events.topics.delta_applied == "studio.delta.applied"
    assert settings.workflow.task_queue == "studio-providers"


def test_the_shipped_file_says_what_the_seed_says() -> None:
    shipped = yaml.safe_load(CONFIG_FILE.read_text())
    seed = yaml.safe_load(SEED)
    assert {section: shipped[section] for section in seed} == seed


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(config(tmp_path, "")) == Settings()


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_every_named_variable_sets_its_keys(variable: str) -> None:
    value = "1234" if variable.endswith("_PORT") else "given"
    settings = load_settings({variable: value})
    assert {str(value_at(settings, key)) for key in VARIABLES[variable]} == {value}


def test_every_named_variable_means_a_key_that_exists() -> None:
    known = {key for key, _, _ in leaves()}
    meant = {key.replace("ai-service", "<name>") for keys in VARIABLES.values() for key in keys}
    assert meant <= known


def test_any_key_has_a_generic_variable() -> None:
    settings = load_settings({"STUDIO__PROVIDERS__RETRY_POLICY__MAX_ATTEMPTS": "7", "STUDIO__RELAY__BATCH": "9"})
    assert settings.providers.retry_policy.max_attempts == 7
    assert settings.relay.batch == 9


def test_a_generic_variable_wins_over_a_named_one() -> None:
    settings = load_settings({"STUDIO_PORT": "1", "STUDIO__SERVICE__PORT": "2"})
    assert settings.service.port == 2


def test_a_hyphen_in_a_services_name_is_an_underscore_in_its_variable() -> None:
    settings = load_settings({"STUDIO__SERVICES__AI_SERVICE__PURE": "false"})
    assert set(settings.services) == {"ai-service"}
    assert settings.services["ai-service"].pure is False


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_settings({"STUDIO_PORT": "", "STUDIO__RELAY__BATCH": ""}) == load_settings({})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(seconds=1.5)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("30d", timedelta(days=30)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert load_settings({"STUDIO__PROVIDERS__TIMEOUT": text}).providers.timeout == expected


@pytest.mark.parametrize("text", ["30", "0s", "s", "-1s", "1 week", "1e3s"])
def test_anything_else_is_no_duration(text: str) -> None:
    error = refused({"STUDIO__PROVIDERS__TIMEOUT": text})
    assert [fault.pointer for fault in error.faults] == ["/providers/timeout"]


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    error = refused({"STUDIO__CASCADES__WINDW": "3"})
    assert "cascades.windw is not a setting; did you mean cascades.window?" in error.detail
    assert "STUDIO__CASCADES__WINDW" in error.detail
    assert error.faults[0].code == "unknown_field"


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    env = config(tmp_path, "service: {port: 99999, color: red}\nrelay: 5\n") | {"STUDIO__CASCADES__WINDOW": "0"}
    pointers = {fault.pointer for fault in refused(env).faults}
    assert pointers == {"/service/port", "/service/color", "/relay", "/cascades/window"}


def test_a_key_of_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    env = config(tmp_path, "service: {port: many}")
    assert env["STUDIO_CONFIG"] in refused(env).detail


def test_a_variable_does_not_hide_a_value_where_a_section_belongs(tmp_path: Path) -> None:
    env = config(tmp_path, "service: 5") | {"STUDIO_PORT": "80"}
    assert refused(env).faults[0].pointer == "/service"


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "is not YAML in line"), ("- a", "must hold a mapping"), ("1: {}", "must hold a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(config(tmp_path, text)).detail


def test_a_file_that_is_missing_is_named() -> None:
    assert "nowhere.yaml cannot be read: No such file" in refused({"STUDIO_CONFIG": "nowhere.yaml"}).detail


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    assert "is larger than" in refused(config(tmp_path, "#" * 1_000_001)).detail


def test_no_error_and_no_print_shows_a_secret() -> None:
    secret = "hunter2"
    env = {"DATABASE_URL": f"postgres://a:{secret}@h/d", "S3_SECRET_KEY": secret, "MODEL_API_KEY": secret}
    assert secret not in repr(load_settings(env))
    error = refused(env | {"STUDIO__STORAGE__METADATA__URL__PASSWORD": secret, "STUDIO__AI__TOKN": secret})
    assert secret not in f"{error} {error.faults!r} {error.__cause__!r}"


def test_settings_do_not_change() -> None:
    settings = load_settings({})
    with pytest.raises(ValidationError):
        settings.service.port = 1


def test_a_key_that_a_process_needs_is_asked_for_by_its_variable() -> None:
    with pytest.raises(Invalid, match=r"storage\.metadata\.url is not set: set DATABASE_URL"):
        required(load_settings({}).storage.metadata.url, "storage.metadata.url")
    with pytest.raises(Invalid, match="set STUDIO__RELAY__BATCH"):
        required(None, "relay.batch")
    assert required(3, "relay.batch") == 3


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_PORT", "8123")
    assert load_settings().service.port == 8123
