"""Settings: order of sources, errors that name key, value and reason, and the generated reference page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from enrich.errors import ConfigError
from enrich.settings import Settings, load_settings, reference

ROOT = Path(__file__).parents[1]


def refused(
    flags: dict[str, object] | None = None, environment: dict[str, str] | None = None, **more: Path
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags or {}, environment or {}, directory=Path("/nonexistent"), **more)
    return caught.value


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    (tmp_path / "enrich.toml").write_text("port = 1\nretention_days = 1\nmax_waiting = 1\n")
    environment = {"ENRICH_PORT": "2", "ENRICH_RETENTION_DAYS": "2", "HOME": "/home/x"}
    settings = load_settings({"port": 3, "host": None}, environment, directory=tmp_path)
    assert (settings.port, settings.retention_days, settings.max_waiting) == (3, 2, 1)
    assert settings.host == "127.0.0.1"


def test_a_table_in_the_file_is_a_prefix(tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text(
        '[input]\nagent = "a.b"\n[attributes]\nallow = ["x", "y"]\n[tokens]\nread = ["s3cret"]\n[duckdb]\nthreads = 2\n'
    )
    for settings in (
        load_settings({}, {}, config=config),
        load_settings({}, {"ENRICH_CONFIG": str(config)}, directory=tmp_path),
    ):
        assert settings.input_paths()["agent"] == "a.b"
        assert settings.attributes_allow == ("x", "y")
        assert settings.tokens()["read"] == ("s3cret",)
        assert settings.duckdb_threads == 2


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    settings = load_settings({}, {"ENRICH_ATTRIBUTES_ALLOW": "a, b,", "ENRICH_TOKENS_INGEST": "t1,t2"})
    assert settings.attributes_allow == ("a", "b")
    assert settings.tokens()["ingest"] == ("t1", "t2")


@pytest.mark.parametrize("scope", ["ingest", "decide", "read", "as_of", "admin"])
@pytest.mark.parametrize("value", ["", ",", " , "])
def test_an_empty_token_variable_is_refused_and_opens_nothing(scope: str, value: str) -> None:
    error = refused(environment={f"ENRICH_TOKENS_{scope.upper()}": value})
    assert error.code == "invalid_setting"
    assert error.detail["setting"] == f"tokens_{scope}"
    assert "has no token" in error.message


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({"port": 70000}, {}, "setting `port` has value `70000` (--port): input should be less than or equal to 65535"),
        ({}, {"ENRICH_RETENTION_DAYS": "0"}, "setting `retention_days` has value `0` (ENRICH_RETENTION_DAYS)"),
        ({"port": True}, {}, "a number is wanted, not a boolean"),
        (
            {"input_agent": "a..b"},
            {},
            "setting `input_agent` has value `a..b` (--input-agent): a dotted path is wanted",
        ),
        ({"duckdb_memory_limit": "lots"}, {}, "setting `duckdb_memory_limit` has value `lots`"),
        ({"log_level": "loud"}, {}, "setting `log_level` has value `loud`"),
        ({"input_history": "identity"}, {}, "input_history `identity` and input_agent `identity.actor_id` lie on one"),
    ],
)
def test_a_bad_value_shows_key_value_and_reason(
    flags: dict[str, object], environment: dict[str, str], message: str
) -> None:
    error = refused(flags, environment)
    assert error.code == "invalid_setting"
    assert message in error.message


def test_all_bad_values_are_told_at_once() -> None:
    error = refused({"port": -1, "max_waiting": 0})
    assert error.detail["setting"] == "port"
    assert error.detail["others"] == [
        "setting `max_waiting` has value `0` (--max-waiting): input should be greater than or equal to 1"
    ]


def test_an_unknown_name_shows_the_nearest(tmp_path: Path) -> None:
    error = refused(environment={"ENRICH_RETENTION_DAY": "3"})
    assert error.message == "unknown setting `retention_day` (ENRICH_RETENTION_DAY)"
    assert error.detail["hint"] == "did you mean `retention_days`?"
    config = tmp_path / "enrich.toml"
    config.write_text('[input]\nagnet = "x"\n')
    assert refused(config=config).detail["hint"] == "did you mean `input_agent`?"


def test_a_token_never_stands_in_a_message() -> None:
    error = refused({"tokens_read": ["", "s3cret"]})
    assert "s3cret" not in str(error)
    assert "s3cret" not in str(error.detail)
    assert "s3cret" not in repr(Settings(tokens_read=(SecretStr("s3cret"),)))


def test_a_file_that_is_missing_broken_or_says_things_twice_is_refused(tmp_path: Path) -> None:
    assert "`no.toml` can't be read" in refused(config=tmp_path / "no.toml").message
    config = tmp_path / "enrich.toml"
    config.write_text("port = \n")
    assert "`enrich.toml` is no TOML" in refused(config=config).message
    config.write_text('input_agent = "a"\n[input]\nagent = "b"\n')
    assert refused(config=config).message == "setting `input_agent` is given twice (enrich.toml)"


def test_settings_do_not_read_the_environment_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENRICH_PORT", "1")
    assert Settings().port == 8686


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_the_defaults_are_valid() -> None:
    assert Settings(**Settings().model_dump()) == Settings()
    assert Settings().retention_us == 90 * 86_400 * 1_000_000


def test_shaping_settings_are_json_and_leave_the_rest_out() -> None:
    shaping = Settings(attributes_allow=("b", "a"), port=1).shaping()
    assert shaping["attributes_allow"] == ["a", "b"]
    assert "port" not in shaping


def test_the_reference_page_is_up_to_date() -> None:
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "enrich.settings"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert printed == reference()
    assert (ROOT / "docs/reference/settings.md").read_text() == printed
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` |" in printed
        assert field.description
