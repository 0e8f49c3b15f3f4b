"""The HTTP service: requests in, the engine's answers out.

It parses, authorizes, asks the engine, waits until what was seen is durable, serializes, measures. It must never know
how an answer comes about: no signal, no rule of an event, no policy semantics lives here.
"""

from enrich.service.app import create_app
from enrich.service.logs import configure_logs
from enrich.service.server import serve as serve_engine

__all__ = ["configure_logs", "create_app", "serve_engine"]
