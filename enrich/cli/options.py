"""The options that commands share, and what they add up to: settings, and a target to ask."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from enrich.errors import BadRequestError
from enrich.settings import Settings, default_text, load_settings

__all__ = [
    "TOKEN_VARIABLE",
    "URL_VARIABLE",
    "AsOf",
    "Config",
    "Data",
    "Json",
    "Policies",
    "Queries",
    "Token",
    "Url",
    "every_setting",
    "service_url",
    "settings_of",
]

URL_VARIABLE: Final = "ENRICH_URL"
TOKEN_VARIABLE: Final = "ENRICH_TOKEN"
#: a command line can be read by everybody on the machine: no secret is taken from it
_NO_FLAG: Final = "tokens_"

Command = TypeVar("Command", bound=Callable[..., None])

Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data directory. [default: data]")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar=URL_VARIABLE,
        help="Ask a running service instead of opening a directory: http://host:port, or unix:PATH.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", envvar=TOKEN_VARIABLE, help="Bearer token for --url.", show_envvar=True),
]
Queries = Annotated[
    Path | None, typer.Option("--queries", metavar="DIR", help="Directory of signal sets. [default: queries]")
]
Policies = Annotated[
    Path | None, typer.Option("--policies", metavar="PATH", help="Directory of Rego policies, or an OPA bundle.")
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file. [default: enrich.toml, if there is one]")
]
AsOf = Annotated[
    str | None, typer.Option("--as-of", metavar="T", help="The moment to answer for, RFC 3339. [default: now]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def every_setting(command: Command) -> Command:
    """The command with a flag for each setting that it has none for; they arrive as keywords, as text or None."""
    own = inspect.signature(command, eval_str=True)
    given = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    f"--{name.replace('_', '-')}",
                    metavar="VALUE",
                    help=f"{field.description} [default: {default_text(field.default)}]",
                ),
            ],
        )
        for name, field in Settings.model_fields.items()
        if name not in own.parameters and not name.startswith(_NO_FLAG)
    ]
    command.__signature__ = own.replace(parameters=[*given, *more])  # type: ignore[attr-defined]
    return command


def service_url(call: typer.Context, url: str | None, **own: Path | None) -> str | None:
    """The service to ask, if one is meant: a directory named on the command line beats the environment's `ENRICH_URL`.

    Args:
        url: as the command has it, from the command line or from the environment.
        own: flags that only a directory of one's own has a use for, such as `data`.

    Raises:
        BadRequestError: both stand on the command line.
    """
    given = [name for name, value in own.items() if value is not None]
    if url is None or not given:
        return url
    source = call.get_parameter_source("url")
    if source is None or source.name != "COMMANDLINE":
        return None
    raise BadRequestError(
        f"--{given[0]} and --url exclude each other",
        code=f"{given[0]}_and_url",
        hint="the service at --url has its own",
    )


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings: flags, then `ENRICH_*`, then the file.

    Raises:
        ConfigError: see `load_settings`.
    """
    # these two are of this command line, not of the engine
    environment = {name: value for name, value in os.environ.items() if name not in (URL_VARIABLE, TOKEN_VARIABLE)}
    return load_settings(flags, environment, config=config)
