"""Feast's online read, ten stored values of one entity, in process: run by a Python that has Feast 0.67 installed.

Prints one JSON object: microseconds at the median and the 99th percentile. `make bench` runs it in a virtual
environment of its own; the project does not depend on Feast.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

REPO = """project: bench
provider: local
registry: {root}/registry.db
online_store:
  type: sqlite
  path: {root}/online.db
entity_key_serialization_version: 3
"""


def main(rounds: int = 3000, entities: int = 1000) -> None:
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Float64
    from feast.value_type import ValueType

    with tempfile.TemporaryDirectory() as root:
        Path(root, "feature_store.yaml").write_text(REPO.format(root=root))
        now = datetime.now(UTC)
        names = [f"value_{i}" for i in range(10)]
        frame = pd.DataFrame(
            {
                "agent_id": [f"agent-{i:06d}" for i in range(entities)],
                "event_timestamp": now - timedelta(minutes=1),
                **{name: [float(i) for i in range(entities)] for name in names},
            }
        )
        source = Path(root, "values.parquet")
        frame.to_parquet(source)
        agent = Entity(name="agent", join_keys=["agent_id"], value_type=ValueType.STRING)
        view = FeatureView(
            name="stats",
            entities=[agent],
            ttl=timedelta(days=1),
            schema=[Field(name=name, dtype=Float64) for name in names],
            source=FileSource(path=str(source), timestamp_field="event_timestamp"),
        )
        store = FeatureStore(repo_path=root)
        store.apply([agent, view])
        store.write_to_online_store("stats", frame)
        features = [f"stats:{name}" for name in names]
        times = []
        for i in range(rounds):
            row = [{"agent_id": f"agent-{i * 7919 % entities:06d}"}]
            start = time.perf_counter_ns()
            values = store.get_online_features(features=features, entity_rows=row).to_dict()
            times.append(time.perf_counter_ns() - start)
        if values["value_3"][0] is None:
            sys.exit("feast answered nothing")
        times.sort()
        print(json.dumps({"p50_us": times[len(times) // 2] / 1e3, "p99_us": times[len(times) * 99 // 100] / 1e3}))


if __name__ == "__main__":
    main()
