"""The command line. It parses arguments, asks the engine or a running service, and prints; it knows no rule itself."""

from enrich.cli.main import main

__all__ = ["main"]
