"""Everything a user can set: names, units, defaults, and where a value comes from (flag, environment, file).

`Settings(...)` holds exactly what it is given; `load_settings` reads flags, then `ENRICH_*` variables, then
`enrich.toml`.
`python -m enrich.settings` prints the reference page.
"""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from enrich.errors import ConfigError, show

__all__ = ["CONFIG_FILE", "ENV_PREFIX", "Settings", "default_text", "load_settings", "reference"]

ENV_PREFIX: Final = "ENRICH_"
CONFIG_FILE: Final = "enrich.toml"
#: `ENRICH_*` variables that are no settings
_OTHER_VARIABLES: Final = frozenset(("ENRICH_CONFIG", "ENRICH_FAILPOINT"))
#: fields whose value must not appear in a message
_SECRET: Final = "tokens_"
_PATH_KEY: Final = re.compile(r"[^\s.\x00-\x1f\x7f]{1,200}")
#: a rule's name, alone or at the end of its package's path
_RULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_SIZE: Final = re.compile(r"[1-9]\d{0,6}(?:\.\d{1,3})? ?(?:[kKMGT]i?B)")
_MIB: Final = 1 << 20
_DAY_US: Final = 86_400_000_000


def _integer(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not a boolean")
    return value


def _separated(value: object) -> object:
    """A text is a comma-separated list, as environment and flags have it."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _tokens(value: object) -> object:
    """INVARIANT: an empty variable is an error: it stands for a secret that went missing, not for an open service."""
    parts = _separated(value)
    if isinstance(value, str) and not parts:
        raise ValueError("it is set and has no token: remove it if no token is meant")
    return parts


def _dotted(value: str) -> str:
    if not all(_PATH_KEY.fullmatch(key) for key in value.split(".")):
        raise ValueError("a dotted path is wanted, such as `instance.owning_team_id`")
    return value


def _on_one_path(a: str, b: str) -> bool:
    """Whether two dotted paths are the same, or one lies above the other."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def _rules(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _RULE.fullmatch(name):
            raise ValueError("rules are wanted, such as `decision` or `gantral.authority.decision`")
    return value


def _size(value: str) -> str:
    if not _SIZE.fullmatch(value):
        raise ValueError("a size is wanted, such as `512MiB` or `2GiB`")
    return value


def _patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in value:
        if "[" in pattern or "\\" in pattern:
            raise ValueError("names are wanted, in which `*` and `?` stand for others")
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_separated)]
Rules = Annotated[Names, AfterValidator(_rules)]
Patterns = Annotated[Names, AfterValidator(_patterns)]
BundleAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512"
]
Tokens = Annotated[tuple[Annotated[SecretStr, Field(min_length=1)], ...], NoDecode, BeforeValidator(_tokens)]
DottedPath = Annotated[str, AfterValidator(_dotted)]
DottedPaths = Annotated[Names, AfterValidator(lambda paths: tuple(map(_dotted, paths)))]
Size = Annotated[str, AfterValidator(_size)]


class Settings(BaseSettings):
    """All settings, frozen. Field descriptions are the reference page."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, validate_default=False, hide_input_in_errors=True
    )

    # Where things are
    data: Path = Field(default=Path("data"), description="Data directory: journal, DuckDB file, saved index.")
    queries: Path = Field(default=Path("queries"), description="Directory of signal sets (`*.sql`).")
    policies: Path | None = Field(
        default=None,
        description="Directory of Rego policies, or an OPA bundle (`bundle.tar.gz`); without it nothing can be "
        "decided, only enriched.",
    )
    shadow_policies: Path | None = Field(
        default=None,
        description="Directory or bundle of policies that are asked after the live ones and never answer: what they "
        "would have decided stands in the record.",
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; without tokens only loopback."
    )
    port: Integer = Field(default=8686, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    uds: Path | None = Field(default=None, description="Unix socket to listen on instead of host and port.")

    # What is kept
    retention_days: Integer = Field(
        default=90,
        ge=1,
        le=36_500,
        description="How long events count, in days; never shorter than the longest window.",
    )
    keep_events_days: Integer | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="How long the journal keeps the bodies of events, in days, never shorter than retention; unset: "
        "for good. Their headers and hashes stay.",
    )
    keep_decisions_days: Integer | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="The same for decisions and their outcomes: what was let go of can't be shown or replayed.",
    )
    max_clock_skew_seconds: Integer = Field(
        default=60, ge=0, le=86_400, description="How far an event may lie ahead of the engine's clock, in seconds."
    )
    attributes_allow: Names = Field(
        default=(), description="Attribute keys kept besides those that the signal sets read; all others are dropped."
    )

    # Where ids stand in a policy's input
    input_agent: DottedPath = Field(default="identity.actor_id", description="Path of the agent's id.")
    input_team: DottedPath = Field(default="instance.owning_team_id", description="Path of the team's id.")
    input_workflow: DottedPath = Field(default="instance.workflow_id", description="Path of the workflow's id.")
    input_org: DottedPath = Field(default="instance.org_id", description="Path of the organisation's id.")
    input_approvers: DottedPath = Field(
        default="approval.candidate_ids", description="Path of the list of candidate approvers' ids."
    )
    input_history: DottedPath = Field(
        default="history", description="Path at which the history is put; a caller's is refused."
    )

    input_instance: DottedPath = Field(
        default="instance.instance_id", description="Path of the id of the instance that a decision is about."
    )
    input_materiality: DottedPath = Field(
        default="instance.materiality", description="Path of a decision's materiality: `LOW`, `MEDIUM` or `HIGH`."
    )

    # What a request declares, for what is in flight
    input_declared_amount: DottedPath = Field(
        default="context.attributes.amount_minor",
        description="Path of the amount that a request would move, in minor units of its currency.",
    )
    input_declared_cost: DottedPath = Field(
        default="context.attributes.cost_microusd",
        description="Path of what a request would cost, in millionths of a US dollar.",
    )
    input_currency: DottedPath = Field(
        default="context.attributes.currency", description="Path of the currency of a request's amount."
    )
    input_action: DottedPath = Field(
        default="context.attributes.action", description="Path of what a request would do, such as `refund`."
    )
    input_environment: DottedPath = Field(
        default="context.attributes.environment", description="Path of where it would do it, such as `prod`."
    )
    lease_seconds: Integer = Field(
        default=3600,
        ge=1,
        le=604_800,
        description="How long an action that was given authority is in flight when nobody says that it ended, in "
        "seconds; not longer than retention.",
    )

    # Who evaluates, and what is a decision
    evaluator: Literal["embedded", "wasm", "opa"] = Field(
        default="embedded",
        description="What evaluates policies: `embedded`, in processes of the engine's own; `wasm`, compiled by `opa`, "
        "within the engine; `opa`, a real OPA.",
    )
    opa_path: str = Field(
        default="opa", min_length=1, description="The `opa` executable: a path, or a name to be found on PATH."
    )
    opa_url: str | None = Field(
        default=None,
        description="Where an OPA listens that others run, `http://127.0.0.1:8181` or `unix:///run/opa.sock`; without "
        "it the evaluator `opa` starts one of its own.",
    )
    decision_paths: Rules = Field(
        default=("decision", "allow"),
        description="Rules whose answers are decisions, counted and recorded: a name means that rule in every package, "
        "a dotted path that one rule. Empty: nothing is.",
    )
    projection: bool = Field(
        default=True, description="Give a decision only the signals that its policy can read; off, it gets all."
    )
    allow_unrepeatable: bool = Field(
        default=False,
        description="Allow decisions that read clock, network, randomness or environment: replays of them say nothing.",
    )

    shadow_limit_ms: Integer = Field(
        default=50,
        ge=1,
        le=60_000,
        description="How long a decision waits for the shadow policies, in ms; with less time left they are skipped.",
    )

    # How bundles are verified
    bundle_verification_key: Path | None = Field(
        default=None,
        description="File with the public key (PEM), or with the secret of an `HS` algorithm; set, policies load only "
        "from a bundle that it verifies.",
    )
    bundle_verification_key_id: str | None = Field(
        default=None, min_length=1, description="Name that the bundle's signature has to give its key; default: any."
    )
    bundle_verification_algorithm: BundleAlgorithm = Field(
        default="RS256", description="What bundles are signed with: `RS`, `PS`, `ES` or `HS` and `256`, `384` or `512`."
    )
    bundle_verification_scope: str = Field(default="", description="Scope that the bundle's signature has to state.")
    bundle_verification_exclude: Patterns = Field(
        default=(), description="Files of a bundle that are not verified; `*` and `?` match within a directory."
    )
    bundle_skip_verification: bool = Field(
        default=False, description="Load a signed bundle without verifying it; without a key one is refused."
    )

    # Who may call
    tokens_ingest: Tokens = Field(default=(), description="Bearer tokens that may send events.")
    tokens_decide: Tokens = Field(default=(), description="Bearer tokens that may enrich and decide.")
    tokens_read: Tokens = Field(default=(), description="Bearer tokens that may read events, entities and signals.")
    tokens_as_of: Tokens = Field(default=(), description="Bearer tokens that may ask for another time than now.")
    tokens_admin: Tokens = Field(default=(), description="Bearer tokens that may reload and see metrics.")

    # Limits of one request
    max_body_bytes: Integer = Field(
        default=8 * _MIB, ge=1024, le=1 << 30, description="Largest request body, in bytes."
    )
    max_input_bytes: Integer = Field(
        default=_MIB, ge=1024, le=1 << 30, description="Largest body of `/v1/enrich` and of the Data API, in bytes."
    )
    max_json_depth: Integer = Field(default=64, ge=4, le=500, description="Deepest nesting of a JSON body.")
    max_request_events: Integer = Field(
        default=10_000,
        ge=1,
        le=10_000,
        description="Events that are stored all or nothing; a request of up to ten times as many is several records.",
    )
    deadline_ms: Integer = Field(
        default=1000,
        ge=1,
        le=600_000,
        description="How long a request may wait for its turn, in ms, before it is refused `busy`; a decision has so "
        "long from its arrival to its record.",
    )

    # Queues: past them the answer is 503 `busy`
    max_waiting: Integer = Field(default=10_000, ge=1, description="Requests that wait for the disk at the same time.")
    ingest_queue: Integer = Field(default=64, ge=1, description="Large request bodies that wait to be parsed.")
    read_queue: Integer = Field(default=64, ge=1, description="Reads of DuckDB that wait.")
    evaluation_queue: Integer = Field(default=1024, ge=1, description="Policy evaluations that wait.")
    decision_queue: Integer = Field(
        default=256,
        ge=1,
        le=4096,
        description="Decisions that wait for another one about the same entity; each holds a thread meanwhile.",
    )
    backtest_decisions: Integer = Field(
        default=10_000, ge=1, description="Decisions that one call of `/v1/backtest` tests at most."
    )
    idempotency_keys: Integer = Field(
        default=500_000,
        ge=1,
        description="Idempotency keys of decisions in memory, each for 24 h; an answer beyond 256 bytes counts as "
        "several. Past it a decision with a new key is refused `busy`.",
    )
    bulk_events: Integer = Field(
        default=100,
        ge=1,
        description="More events than this in a request are bulk: refused while DuckDB is too far behind.",
    )
    history_queue_events: Integer = Field(
        default=50_000,
        ge=1,
        description="Events that wait in memory for DuckDB; others are read again from the journal.",
    )
    history_backlog_events: Integer = Field(
        default=2_000_000, ge=1, description="DuckDB is too far behind above this many events."
    )

    # Journal
    journal_redact: DottedPaths = Field(
        default=(),
        description="Input paths whose values stand in the journal as keyed, salted hashes: policies see them, records "
        "do not keep them.",
    )
    anchors: Path | None = Field(
        default=None,
        description="File of anchors (`enrich journal anchor`) that the journal is held against at the start; best "
        "kept where whoever can write the data directory can't.",
    )
    fsync: bool = Field(
        default=True, description="Off, acknowledged events can be lost with the machine: for tests only."
    )
    segment_bytes: Integer = Field(
        default=64 * _MIB, ge=4096, description="Size at which a journal segment is closed, in bytes."
    )
    sidecar_rows: Integer = Field(
        default=1_500, ge=1, description="Batches from this many events on stand in a Parquet file."
    )
    disk_low_bytes: Integer = Field(
        default=256 * _MIB, ge=0, description="Below this much free space events and decisions are refused, in bytes."
    )

    # DuckDB
    duckdb_threads: Integer = Field(
        default=1, ge=1, le=256, description="Threads of DuckDB, for following and for reads."
    )
    duckdb_memory_limit: Size = Field(default="1GiB", description="Memory of DuckDB, such as `512MiB`.")

    # Upkeep
    prune_interval_seconds: Integer = Field(
        default=3600, ge=1, description="How often events past retention are removed."
    )
    save_interval_seconds: Integer = Field(
        default=300, ge=1, description="How often the index is saved for a quick start."
    )
    reload_watch: bool = Field(default=True, description="Reload signal sets and policies when their files change.")

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe message logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or lines for people."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: reading the environment is `load_settings`' doing, never a side effect."""
        return (init_settings,)

    @model_validator(mode="after")
    def _paths_apart(self) -> Settings:
        for name, path in self._read_paths().items():
            if _on_one_path(path, self.input_history):
                raise ValueError(f"input_history `{self.input_history}` and {name} `{path}` lie on one path")
        return self

    @model_validator(mode="after")
    def _redacted_apart(self) -> Settings:
        """INVARIANT: nothing is redacted in one place of a record and stands in clear in another."""
        for redacted in self.journal_redact:
            for name, path in (self._read_paths() | {"input_history": self.input_history}).items():
                if _on_one_path(redacted, path):
                    raise ValueError(f"journal_redact `{redacted}` and {name} `{path}` lie on one path")
        return self

    def _read_paths(self) -> dict[str, str]:
        """Setting to the dotted path of what is read from an input."""
        return {f"input_{entity}": path for entity, path in self.input_paths().items()} | {
            "input_approvers": self.input_approvers,
            "input_instance": self.input_instance,
            "input_materiality": self.input_materiality,
            **self.declared_paths(),
        }

    @model_validator(mode="after")
    def _kept_as_long_as_they_count(self) -> Settings:
        for name in ("keep_events_days", "keep_decisions_days"):
            days = getattr(self, name)
            if days is not None and days < self.retention_days:
                raise ValueError(f"{name} `{days}` is shorter than retention_days `{self.retention_days}`")
        return self

    @model_validator(mode="after")
    def _bundles(self) -> Settings:
        """INVARIANT: no setting about verification stands there and does nothing."""
        if self.bundle_verification_key is not None:
            if self.bundle_skip_verification:
                raise ValueError("bundle_verification_key and bundle_skip_verification exclude each other")
            return self
        for name in ("key_id", "scope", "exclude"):
            if getattr(self, f"bundle_verification_{name}"):
                raise ValueError(f"bundle_verification_{name} is set, and bundle_verification_key is not")
        return self

    @model_validator(mode="after")
    def _shadow(self) -> Settings:
        if self.shadow_policies is not None and self.shadow_limit_ms >= self.deadline_ms:
            raise ValueError(
                f"shadow_limit_ms `{self.shadow_limit_ms}` is not below deadline_ms `{self.deadline_ms}`: the shadow "
                "policies would never be asked"
            )
        return self

    @model_validator(mode="after")
    def _lease_within_retention(self) -> Settings:
        if self.lease_us > self.retention_us:
            raise ValueError(f"lease_seconds `{self.lease_seconds}` is longer than retention_days")
        return self

    @property
    def lease_us(self) -> int:
        return self.lease_seconds * 1_000_000

    @property
    def retention_us(self) -> int:
        return self.retention_days * _DAY_US

    def input_paths(self) -> dict[str, str]:
        """Entity to the dotted path of its id; approvers stand apart, as a list."""
        return {
            "agent": self.input_agent,
            "team": self.input_team,
            "workflow": self.input_workflow,
            "org": self.input_org,
        }

    def declared_paths(self) -> dict[str, str]:
        """Setting to the dotted path of what a request declares."""
        return {
            "input_action": self.input_action,
            "input_currency": self.input_currency,
            "input_declared_amount": self.input_declared_amount,
            "input_declared_cost": self.input_declared_cost,
            "input_environment": self.input_environment,
        }

    def tokens(self) -> dict[str, tuple[str, ...]]:
        """Scope to its tokens, in clear."""
        return {
            "ingest": tuple(t.get_secret_value() for t in self.tokens_ingest),
            "decide": tuple(t.get_secret_value() for t in self.tokens_decide),
            "read": tuple(t.get_secret_value() for t in self.tokens_read),
            "as_of": tuple(t.get_secret_value() for t in self.tokens_as_of),
            "admin": tuple(t.get_secret_value() for t in self.tokens_admin),
        }

    def shaping(self) -> dict[str, Any]:
        """The settings that shape contexts and decisions, as JSON: journaled with the definitions they go live with."""
        return {
            "allow_unrepeatable": self.allow_unrepeatable,
            **self.declared_paths(),
            "attributes_allow": sorted(self.attributes_allow),
            "decision_paths": sorted(self.decision_paths),
            "evaluator": self.evaluator,
            "input_approvers": self.input_approvers,
            "input_history": self.input_history,
            "input_instance": self.input_instance,
            "input_materiality": self.input_materiality,
            "input_paths": self.input_paths(),
            "lease_seconds": self.lease_seconds,
            "max_clock_skew_seconds": self.max_clock_skew_seconds,
            "projection": self.projection,
            "retention_days": self.retention_days,
        }


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], *, config: Path | None = None, directory: Path = Path()
) -> Settings:
    """Settings from flags, then the environment, then the file: the first that has a value wins.

    Args:
        flags: field name to value; None counts as not given.
        environment: `os.environ`; its `ENRICH_CONFIG` names the file when `config` does not.
        config: the TOML file; without it `enrich.toml` in `directory`, if there is one.

    Raises:
        ConfigError: an unknown key, a bad value, or a file that can't be read; `detail` has `setting` and `source`.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    found = [(name, value, f"--{name.replace('_', '-')}") for name, value in flags.items() if value is not None]
    found += _from_environment(environment)
    found += _from_file(config, environment, directory)
    for name, value, source in found:
        if name not in Settings.model_fields:
            raise _unknown(name, source)
        if sources.get(name) == source:
            raise ConfigError(f"setting `{name}` is given twice ({source})", setting=name, source=source)
        if name not in merged:
            merged[name], sources[name] = value, source
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise _refused(error, merged, sources) from None


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    for variable, value in environment.items():
        if variable.startswith(ENV_PREFIX) and variable not in _OTHER_VARIABLES:
            yield variable.removeprefix(ENV_PREFIX).lower(), value, variable


def _from_file(config: Path | None, environment: Mapping[str, str], directory: Path) -> Iterator[tuple[str, Any, str]]:
    if config is None and environment.get("ENRICH_CONFIG"):
        config = Path(environment["ENRICH_CONFIG"])
    if config is None:
        config = directory / CONFIG_FILE
        if not config.exists():
            return
    try:
        document = tomllib.loads(config.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{show(config.name)} can't be read: {error}", source=config.name) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{show(config.name)} is no TOML: {error}", source=config.name) from error
    for key, value in document.items():
        if isinstance(value, dict):
            # a table is a prefix: [input] agent = ... is input_agent
            for inner, inner_value in value.items():
                yield f"{key}_{inner}", inner_value, config.name
        else:
            yield key, value, config.name


def _unknown(name: str, source: str) -> ConfigError:
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else "`python -m enrich.settings` prints them all"
    return ConfigError(f"unknown setting {show(name)} ({source})", hint=hint, setting=name, source=source)


def _refused(error: ValidationError, given: Mapping[str, Any], sources: Mapping[str, str]) -> ConfigError:
    problems: list[tuple[str, str, str]] = []
    for problem in error.errors(include_url=False):
        reason = problem["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if not name:
            problems.append((name, reason, ""))
            continue
        value = "a secret" if name.startswith(_SECRET) else show(given.get(name, ""))
        source = sources.get(name, "")
        problems.append((name, f"setting `{name}` has value {value} ({source}): {reason}", source))
    name, message, source = problems[0]
    others = [text for _, text, _ in problems[1:]]
    return ConfigError(message, setting=name or None, source=source or None, others=others or None)


_SECTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "data": ("Where things are", ""),
    "retention_days": ("What is kept", ""),
    "input_agent": ("Where ids stand in a policy's input", "Paths are dotted keys of nested objects."),
    "decision_paths": ("What is a decision", ""),
    "bundle_verification_key": (
        "How bundles are verified",
        "As the flags of `opa` do; see [bundles](../how-to/bundles.md).",
    ),
    "tokens_ingest": (
        "Who may call",
        "Without any token every call passes, and the service listens on loopback only. With some, a scope that has"
        " none is closed.",
    ),
    "max_body_bytes": ("Limits of one request", ""),
    "max_waiting": ("Queues", "Past its bound a queue refuses: 503 `busy`, with `Retry-After`."),
    "journal_redact": ("Journal", ""),
    "duckdb_threads": ("DuckDB", ""),
    "prune_interval_seconds": ("Upkeep", ""),
    "log_level": ("Logs", ""),
}

_INTRODUCTION: Final = """\
# Settings

A setting is taken from the command line flag, else from the environment, else from `enrich.toml`. The flag of
`retention_days` is `--retention-days`, its variable `ENRICH_RETENTION_DAYS`. `enrich serve` has all flags but those of
the tokens, since everybody on a machine can read a command line; other commands have those that their help lists.
`ENRICH_CONFIG` or `--config` names another file than `enrich.toml` in the working directory. In the file a table is a
prefix, and lists are lists (elsewhere they are separated by commas):

```toml
retention_days = 90

[input]
agent = "identity.actor_id"

[attributes]
allow = ["tool", "region"]

[tokens]
ingest = ["..."]
```

An unknown name is an error that shows the nearest one; a bad value is an error that shows name, value and reason.
This page is the output of `python -m enrich.settings`.
"""


def reference() -> str:
    """The reference page, Markdown."""
    lines = [_INTRODUCTION]
    for name, field in Settings.model_fields.items():
        if name in _SECTIONS:
            title, note = _SECTIONS[name]
            lines += [f"\n## {title}\n"] + ([note + "\n"] if note else [])
            lines += ["| setting | default | what |", "|---|---|---|"]
        default = default_text(field.default)
        shown = default if field.default in (None, ()) else f"`{default}`"
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def default_text(value: object) -> str:
    """A default for people, as flag and environment would have it."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
