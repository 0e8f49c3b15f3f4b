"""The `enrich` command, in processes of its own, on a directory and on a running service."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

import enrich as enrich_package
from enrich import Engine
from enrich.cli.main import app
from enrich.settings import Settings
from tests.service.running import AGENT_SET, Running, definitions, enrich, event, serving


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return definitions(tmp_path)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(definitions(tmp_path_factory.mktemp("cli"))) as running:
        yield running


def lines(path: Path, *events: Any) -> Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events))
    return path


@pytest.fixture(params=["data", "url"])
def target(request: pytest.FixtureRequest, service: Running, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A working directory, and the flags that name a target: an own data directory, or the running service."""
    if request.param == "url":
        return service.directory, ("--url", service.url)
    return definitions(tmp_path), ("--data", "data")


@pytest.fixture(scope="module", params=["data", "url"])
def with_data(
    request: pytest.FixtureRequest, service: Running, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...]]:
    """The same, with an event in it, for those who only ask."""
    directory = tmp_path_factory.mktemp("with-data")
    given: tuple[Path, tuple[str, ...]] = (service.directory, ("--url", service.url))
    if request.param == "data":
        given = definitions(directory), ("--data", "data")
    assert run(given, "ingest", lines(directory / "e.ndjson", event("there-is-data"))).returncode == 0
    return given


def run(target: tuple[Path, tuple[str, ...]], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    directory, flags = target
    return enrich(*arguments, *flags, cwd=directory)


def test_ingest_context_events_and_sql_answer_alike_on_both(
    target: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    name = f"cli-{target[1][0]}"
    file = lines(tmp_path / "e.ndjson", *(event(f"{name}-{i}", agent_id=name) for i in range(3)))
    first = run(target, "ingest", file)
    assert (first.returncode, first.stderr.count("Traceback")) == (0, 0), first.stderr
    assert first.stdout.startswith("accepted 3, duplicate 0, rejected 0, seq ")
    again = run(target, "ingest", file, "--json")
    assert json.loads(again.stdout)["duplicates"] == 3

    context = json.loads(run(target, "context", "agent", name).stdout)
    assert (context["id"], context["last_24h"]["failures"]) == (name, 3)
    then = json.loads(run(target, "context", "agent", name, "--as-of", "2026-01-01T00:00:00Z").stdout)
    assert then["last_24h"]["failures"] == 0
    selected = json.loads(run(target, "context", "agent", name, "--select", "agent.last_24h.failures").stdout)
    assert set(selected["last_24h"]) == {"complete", "failures"}

    page = json.loads(run(target, "events", "--agent", name, "--limit", "2", "--json").stdout)
    assert [e["event_id"] for e in page["events"]] == [f"{name}-2", f"{name}-1"]
    table = run(target, "events", "--agent", name).stdout
    assert table.count(name) >= 3
    assert "3 events at seq" in table

    text = run(target, "sql", "agent_runs", "agent", name, "24h").stdout
    assert name in text
    assert "CREATE" in text


def test_decisions_answer_alike_on_both(service: Running, tmp_path: Path) -> None:
    name = "cli-decided"
    answer = service.http.post(
        "/v1/data/test/authority/decision", json={"input": {"identity": {"actor_id": name}}}
    ).json()
    service.http.put("/v1/suspensions/agent/" + name, json={"reason": "stop"})
    service.http.post("/v1/data/test/authority/decision", json={"input": {"identity": {"actor_id": name}}})
    service.http.delete("/v1/suspensions/agent/" + name)
    url = (service.directory, ("--url", service.url))
    page = json.loads(run(url, "decisions", "--agent", name, "--json").stdout)
    assert [(d["decision"], d.get("cause")) for d in page["decisions"]] == [("DENY", "suspended"), ("ALLOW", None)]
    allowed = run(url, "decisions", "--agent", name, "--decision", "ALLOW").stdout
    assert answer["decision_id"] in allowed
    assert "1 decisions at seq" in allowed
    record = json.loads(run(url, "decision", answer["decision_id"]).stdout)
    assert (record["decision_id"], record["input"]["identity"]) == (answer["decision_id"], {"actor_id": name})
    missing = run(url, "decision", "nothing")
    assert (missing.returncode, "unknown_decision" in missing.stderr) == (1, True)

    own = definitions(tmp_path)
    with Engine.open(own / "data", queries=own / "queries", policies=own / "policies") as engine:
        made = engine.decide(("test", "authority", "decision"), {"identity": {"actor_id": name}})
    local = (own, ("--data", "data"))
    assert made.decision_id in run(local, "decisions", "--agent", name).stdout  # type: ignore[union-attr]
    [shown] = json.loads(run(local, "decisions", "--json").stdout)["decisions"]
    record = json.loads(run(local, "decision", shown["decision_id"]).stdout)
    assert (record["seq"], record["path"]) == (shown["seq"], "test/authority/decision")


def test_a_page_into_a_file_has_one_line_per_event(directory: Path, tmp_path: Path) -> None:
    name = "an-agent-whose-name-is-as-long-as-names-become-in-practice"
    events = [event(f"wide-{i}", agent_id=name, team_id=f"{name}-team", workflow_id=f"{name}-flow") for i in range(3)]
    enrich("ingest", lines(tmp_path / "e.ndjson", *events), cwd=directory)
    table = enrich("events", cwd=directory, environment={"COLUMNS": "80"}).stdout.splitlines()
    assert [len(line.split()) for line in table[:4]] == [7, 7, 7, 7], table
    assert table[4] == "3 events at seq 4"


def test_a_rejected_event_is_shown_with_its_place_and_ends_with_1(
    target: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    name = f"rejects-{target[1][0]}"
    bad = event(f"{name}-1", outcome="broken")
    file = lines(tmp_path / "bad.ndjson", event(f"{name}-0"), "", bad, "{", event(f"{name}-2"))
    answer = run(target, "ingest", file)
    assert answer.returncode == 1
    assert "accepted 2, duplicate 0, rejected 2" in answer.stdout
    assert f"{file}:3: invalid_outcome" in answer.stderr
    assert f"{file}:4: invalid_json" in answer.stderr


def test_gzip_and_parquet_are_read(target: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    name = f"formats-{target[1][0]}"
    packed = tmp_path / "e.ndjson.gz"
    packed.write_bytes(gzip.compress(json.dumps(event(f"{name}-gz", agent_id=name)).encode() + b"\n"))
    table = tmp_path / "e.parquet"
    rows = [event(f"{name}-pq-{i}", agent_id=name, duration_ms=i, attributes=None) for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), table)
    answer = run(target, "ingest", packed, table)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("accepted 4,")


def test_a_file_that_cannot_be_read_is_an_error_without_a_traceback(
    target: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    broken = tmp_path / "e.gz"
    broken.write_bytes(b"\x1f\x8b broken")
    answer = run(target, "ingest", broken)
    assert answer.returncode == 1
    assert "unreadable_file" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("context", "colour", "a"), "unknown_entity"),
        (("context", "agent", ""), "invalid_entity_id"),
        (("context", "agent", "a", "b"), "invalid_entity_id"),
        (("context", "agent", "a", "--as-of", "yesterday"), "invalid_time"),
        (("context", "agent", "a", "--select", "agent.colour"), "unknown_signal"),
        (("events", "--since", "yesterday"), "invalid_time"),
        (("sql", "agent_runs", "colour", "a", "24h"), "unknown_entity"),
        (("sql", "agent_runs", "team", "a", "24h"), "wrong_entity"),
        (("sql", "agent_runs", "agent_workflow", "a", "b", "24h"), "wrong_entity"),
        (("sql", "no_such_set", "agent", "a", "24h"), "unknown_set"),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_its_code(
    with_data: tuple[Path, tuple[str, ...]], arguments: tuple[str, ...], code: str
) -> None:
    answer = run(with_data, *arguments)
    assert answer.returncode == 1
    assert f"error: {code}: " in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("context",),
        ("events", "--limit", "0"),
        ("sql", "agent_runs", "agent"),
        ("nothing",),
        ("ingest", "no-such-file"),
    ],
)
def test_a_wrong_call_ends_with_2(directory: Path, arguments: tuple[str, ...]) -> None:
    answer = enrich(*arguments, cwd=directory)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("context", "agent", "a"),
        ("events",),
        ("sql", "agent_runs", "agent", "a", "24h"),
        ("ingest", "e.ndjson"),
        ("check",),
    ],
)
def test_a_held_directory_is_named_with_what_to_do(service: Running, arguments: tuple[str, ...]) -> None:
    lines(service.directory / "e.ndjson", event("held"))
    answer = enrich(*arguments, "--data", "data", cwd=service.directory)
    assert answer.returncode == 1
    assert "a running service holds `data`" in answer.stderr
    assert "--url" in answer.stderr


def test_a_duckdb_file_open_elsewhere_is_not_taken_for_a_service(directory: Path, tmp_path: Path) -> None:
    enrich("ingest", lines(tmp_path / "e.ndjson", event("open")), cwd=directory)
    with duckdb.connect(directory / "data" / "history.duckdb"):
        answer = enrich("events", cwd=directory)
    assert answer.returncode == 1
    assert "data_dir_locked: another process has `history.duckdb` open" in answer.stderr
    assert "--url" not in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("context", "agent", "a"),
        ("events",),
        ("check",),
        ("journal", "verify"),
        ("sql", "agent_runs", "agent", "a", "24h"),
    ],
)
def test_data_and_url_exclude_each_other(directory: Path, arguments: tuple[str, ...]) -> None:
    answer = enrich(*arguments, "--data", "data", "--url", "http://127.0.0.1:1", cwd=directory)
    assert (answer.returncode, "data_and_url" in answer.stderr) == (1, True)


@pytest.mark.parametrize("flag", ["--queries", "--policies"])
def test_check_of_directories_and_url_exclude_each_other(directory: Path, flag: str) -> None:
    answer = enrich("check", flag, "queries", "--url", "http://127.0.0.1:1", cwd=directory)
    assert (answer.returncode, f"{flag[2:]}_and_url" in answer.stderr) == (1, True)


def test_a_directory_on_the_command_line_beats_the_url_of_the_environment(directory: Path, tmp_path: Path) -> None:
    environment = {"ENRICH_URL": "http://127.0.0.1:1"}
    broken = directory / "broken"
    broken.mkdir()
    (broken / "x.sql").write_text("nonsense")
    answer = enrich("check", "--queries", "broken", "--policies", "broken", cwd=directory, environment=environment)
    assert answer.returncode == 1
    assert "x.sql" in answer.stderr
    file = lines(tmp_path / "e.ndjson", event("here"))
    assert enrich("ingest", file, "--data", "data", cwd=directory, environment=environment).returncode == 0
    answer = enrich("events", "--json", "--data", "data", cwd=directory, environment=environment)
    assert json.loads(answer.stdout)["events"][0]["event_id"] == "here"
    assert "unreachable" in enrich("events", cwd=directory, environment=environment).stderr


@pytest.mark.parametrize(
    "arguments", [("context", "agent", "a"), ("events",), ("sql", "agent_runs", "agent", "a", "24h")]
)
@pytest.mark.parametrize("there", [False, True])
def test_reading_where_no_data_is_makes_nothing(directory: Path, arguments: tuple[str, ...], there: bool) -> None:
    if there:
        (directory / "nowhere").mkdir()
    answer = enrich(*arguments, "--data", "nowhere", cwd=directory)
    assert answer.returncode == 1
    assert "error: no_data: no data at `nowhere`" in answer.stderr
    assert (list((directory / "nowhere").iterdir()) if there else (directory / "nowhere").exists()) == (
        [] if there else False
    )


def test_a_data_directory_is_its_owners_alone(directory: Path, tmp_path: Path) -> None:
    enrich("ingest", lines(tmp_path / "e.ndjson", event("mine")), cwd=directory)
    assert (directory / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("token", ["s3cret\n", "s3cret\x1b[2J", "s3crét", "s3 cret"])
def test_a_token_that_is_none_is_refused_and_not_shown(directory: Path, token: str) -> None:
    answer = enrich("events", "--url", "http://127.0.0.1:1", "--token", token, cwd=directory)
    assert (answer.returncode, "invalid_token" in answer.stderr) == (1, True)
    assert "s3" not in answer.stderr


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:port", "http://127.0.0.1:99999", "http://a\tb", "http://"]
)
def test_what_is_no_url_ends_with_a_message(directory: Path, url: str) -> None:
    answer = enrich("events", "--url", url, cwd=directory)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.stderr


def test_an_argument_that_is_no_text_ends_with_a_message(directory: Path) -> None:
    command = [str(Path(sys.executable).with_name("enrich")).encode(), b"context", b"agent", b"\xff"]
    answer = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    assert (answer.returncode, answer.stderr) == (1, b"error: invalid_utf8: argument 3 is not UTF-8\n")


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(service: Running) -> None:
    environment = {
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }
    answer = enrich("events", "--url", service.url, cwd=service.directory, environment=environment)
    assert answer.returncode == 0, answer.stderr


def test_check_underlines_what_is_wrong_in_a_policy(directory: Path) -> None:
    (directory / "policies" / "authority.rego").write_text("package x\n\nallow if {\n\tinput.x ==\n}\n")
    answer = enrich("check", "--queries", "queries", "--policies", "policies", cwd=directory)
    error, source, caret = answer.stderr.splitlines()[:3]
    assert answer.returncode == 1
    place = error.removeprefix("error: ").split(": ")[0]
    assert place.startswith("policies/authority.rego:")
    assert answer.stderr.count("authority.rego") == 1
    line = int(place.split(":")[1])
    assert source.strip() == (directory / "policies" / "authority.rego").read_text().split("\n")[line - 1].strip()
    assert caret.strip() == "^"


def test_a_service_that_is_not_there_is_named(directory: Path) -> None:
    answer = enrich("events", "--url", "http://127.0.0.1:1", cwd=directory)
    assert answer.returncode == 1
    assert "error: unreachable: no answer from `http://127.0.0.1:1`" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_check_and_verify_say_ok_on_both(target: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    name = f"checked-{target[1][0]}"
    run(target, "ingest", lines(tmp_path / "e.ndjson", *(event(f"{name}-{i}", agent_id=name) for i in range(9))))
    checked = run(target, "check")
    assert (checked.returncode, checked.stdout[:3]) == (0, "ok:"), checked.stderr
    verified = run(target, "journal", "verify")
    assert (verified.returncode, verified.stdout[:3]) == (0, "ok:"), verified.stderr
    report = json.loads(run(target, "journal", "verify", "--json").stdout)
    assert (report["ok"], len(report["head_hash"])) == (True, 64)


def test_every_command_that_a_message_names_is_there() -> None:
    top: Any = typer.main.get_command(app())
    for path in Path(enrich_package.__file__).parent.rglob("*.py"):
        for words in re.findall(r"`enrich ([a-z]+(?: [a-z]+)?)", path.read_text()):
            first, _, second = words.partition(" ")
            command = top.commands.get(first)
            assert command is not None, (path.name, words)
            assert second in getattr(command, "commands", {second}), (path.name, words)


def test_check_without_data_compares_on_a_made_up_history(directory: Path) -> None:
    answer = enrich("check", "--queries", "queries", cwd=directory)
    assert (answer.returncode, answer.stderr) == (0, "")
    said = r"ok: every definition compiles; (\d+) values equal DuckDB's, on a made-up history\n"
    found = re.fullmatch(said, answer.stdout)
    assert found, answer.stdout
    assert int(found[1]) > 100
    assert not (directory / "data").exists()


def test_check_underlines_what_is_wrong(directory: Path) -> None:
    (directory / "queries" / "agent_runs.sql").write_text(AGENT_SET.replace("nullif(", "nulif("))
    answer = enrich("check", "--queries", "queries", cwd=directory)
    assert answer.returncode == 1
    error, source, caret = answer.stderr.splitlines()[:3]
    assert "agent_runs.sql:8:" in error
    assert source.index("nulif") == caret.index("^")
    assert not (directory / "data").exists()


def test_check_shows_every_problem_of_every_file(directory: Path) -> None:
    for name in ("agent_runs", "agent_workflow_runs"):
        file = directory / "queries" / f"{name}.sql"
        file.write_text(file.read_text().replace("count(*)", "cuont(*)"))
    answer = enrich("check", "--queries", "queries", cwd=directory)
    assert "agent_runs.sql:" in answer.stderr
    assert "agent_workflow_runs.sql:" in answer.stderr


def test_check_refuses_a_policy_that_does_not_parse(directory: Path) -> None:
    (directory / "policies" / "authority.rego").write_text("package x\n\nallow if {\n")
    answer = enrich("check", "--queries", "queries", "--policies", "policies", cwd=directory)
    assert answer.returncode == 1
    assert "authority.rego" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_flipped_byte_in_the_journal_is_found(directory: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "e.ndjson", *(event(f"flip-{i}") for i in range(5)))
    assert enrich("ingest", file, cwd=directory).returncode == 0
    segments = (directory / "data" / "journal").glob("*.ndjson")
    segment = next(path for path in segments if b"flip-3" in path.read_bytes())
    content = bytearray(segment.read_bytes())
    at = content.index(b"flip-3")
    content[at] ^= 1
    segment.write_bytes(content)
    answer = enrich("journal", "verify", "--data", "data", cwd=directory)
    assert answer.returncode == 1
    assert answer.stdout.startswith("NOT OK:")
    assert segment.name in answer.stderr


def test_verify_without_a_journal_is_an_error(directory: Path) -> None:
    answer = enrich("journal", "verify", "--data", "nowhere", cwd=directory)
    assert answer.returncode == 1
    assert "has no journal" in answer.stderr
    assert not (directory / "nowhere").exists()


def test_reload_tells_whether_anything_changed(service: Running) -> None:
    answer = enrich("reload", "--url", service.url, cwd=service.directory)
    assert (answer.returncode, answer.stdout.startswith("unchanged: catalog sha256:")) == (0, True)


def test_settings_come_from_flag_then_environment_then_file(directory: Path, tmp_path: Path) -> None:
    (directory / "enrich.toml").write_text('data = "from-file"\n')
    file = lines(tmp_path / "e.ndjson", event("s"))
    enrich("ingest", file, cwd=directory)
    enrich("ingest", file, cwd=directory, environment={"ENRICH_DATA": "from-environment"})
    enrich("ingest", file, "--data", "from-flag", cwd=directory, environment={"ENRICH_DATA": "from-environment-2"})
    assert {p.name for p in directory.iterdir() if p.name.startswith("from-")} == {
        "from-file",
        "from-environment",
        "from-flag",
    }


def test_serve_has_a_flag_for_every_setting_but_the_tokens(directory: Path) -> None:
    said = enrich("serve", "--help", cwd=directory, environment={"COLUMNS": "400"}).stdout
    for name in Settings.model_fields:
        assert (f"--{name.replace('_', '-')} " in said) is not name.startswith("tokens_"), name
    answer = enrich("serve", "--retention-days", "0", cwd=directory, environment={"ENRICH_RETENTION_DAYS": "3"})
    assert answer.returncode == 1
    assert "setting `retention_days` has value `0` (--retention-days)" in answer.stderr


def test_a_flag_of_any_setting_reaches_the_service(directory: Path) -> None:
    with serving(directory, "--max-request-events", "2", "--fsync", "false") as running:
        answer = running.http.post("/v1/events", json=[event(f"f-{i}") for i in range(21)])
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_events")


def test_an_unknown_setting_is_named(directory: Path) -> None:
    answer = enrich("events", cwd=directory, environment={"ENRICH_RETENTION_DAY": "3"})
    assert answer.returncode == 1
    assert "retention_days" in answer.stderr


def test_it_runs_as_a_module_too(directory: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "enrich", "--version"], cwd=directory, capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("enrich ")


def test_help_names_every_command(directory: Path) -> None:
    answer = enrich("--help", cwd=directory)
    for command in ("serve", "ingest", "context", "events", "decisions", "replay", "sql", "check", "reload", "journal"):
        assert command in answer.stdout


@pytest.mark.parametrize("arguments", ["events --json", "events", "context agent a-1", "sql agent_runs agent a-1 24h"])
def test_output_into_a_closed_pipe_is_no_error(directory: Path, tmp_path: Path, arguments: str) -> None:
    enrich("ingest", lines(tmp_path / "e.ndjson", event("piped")), cwd=directory)
    command = f"{Path(sys.executable).with_name('enrich')} {arguments} | true; echo ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", command], cwd=directory, capture_output=True, text=True, check=False)
    assert (answer.stdout, answer.stderr) == ("0\n", "")


def test_the_reference_page_is_what_the_commands_say() -> None:
    from enrich.cli.reference import reference

    page = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
    assert page.read_text() == reference(), "run `python -m enrich.cli.reference > docs/reference/cli.md`"


def test_suspend_suspensions_and_lift_answer_alike_on_both(target: tuple[Path, tuple[str, ...]]) -> None:
    name = f"cli-{target[1][0]}"
    file = lines(target[0] / "s.ndjson", event(f"{name}-s", agent_id=name))
    assert run(target, "ingest", file).returncode == 0
    done = run(target, "suspend", "agent", name, "--reason", "it misbehaves", "--by", "oncall")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"suspended: agent {name} since 20")
    assert done.stdout.rstrip().endswith(", by oncall: it misbehaves")
    held = json.loads(run(target, "suspensions", "--json").stdout)["suspensions"]
    assert [(s["scope"], s["id"]) for s in held] == [("agent", name)]
    assert run(target, "suspensions").stdout.startswith(f"agent {name} since 20")
    assert run(target, "lift", "agent", name).returncode == 0
    assert run(target, "suspensions").stdout == "nothing is suspended\n"
    again = run(target, "lift", "agent", name)
    assert again.returncode == 1
    assert "not_suspended" in again.stderr
    assert run(target, "suspend", "agent", name).returncode == 2  # no reason
