"""The canonical form and its hashes."""

from __future__ import annotations

import hashlib

from enrich.context import canonical_json, context_hash, input_hash


def test_keys_are_sorted_by_code_point_and_nothing_is_spaced() -> None:
    assert canonical_json({"b": 1, "a": [1.0, 0.1, True, None], "é": "ü", "Z": {}}) == (
        '{"Z":{},"a":[1.0,0.1,true,null],"b":1,"é":"ü"}'.encode()
    )


def test_hashes_are_of_the_canonical_bytes() -> None:
    history = {"seq": 1, "agent": {"known": False}}
    digest = hashlib.sha256(b'{"agent":{"known":false},"seq":1}').hexdigest()
    assert context_hash(history) == f"sha256:{digest}"
    assert input_hash({"history": history}) == (
        "sha256:" + hashlib.sha256(b'{"history":{"agent":{"known":false},"seq":1}}').hexdigest()
    )
