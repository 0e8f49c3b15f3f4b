"""Signals: plain DuckDB SQL in, compiled functions out.

In: definition files (`queries/*.sql`). Out: a `Catalog` with what the index keeps per entity (`plans`) and, for a
selection, functions from running totals to JSON-ready signals. This room never sees an event store, a journal or a
request; the exactness of every compiled form against DuckDB is its whole task.
"""

from enrich.signals.catalog import Catalog, DefinitionErrors, load_catalog
from enrich.signals.definition import SignalSet
from enrich.signals.header import Window
from enrich.signals.library import prelude_sql
from enrich.signals.offline import query_for, sql_for

__all__ = ["Catalog", "DefinitionErrors", "SignalSet", "Window", "load_catalog", "prelude_sql", "query_for", "sql_for"]
