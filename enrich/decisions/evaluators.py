"""Which evaluator the settings name."""

from __future__ import annotations

from enrich.decisions.embedded import EmbeddedEvaluator
from enrich.decisions.opa import OpaEvaluator
from enrich.decisions.protocol import Evaluator
from enrich.decisions.wasm import WasmEvaluator
from enrich.settings import Settings

__all__ = ["evaluator_of"]


def evaluator_of(settings: Settings) -> Evaluator:
    """An evaluator as `evaluator` in the settings says; whoever prepares policies with it closes what is prepared.

    Raises:
        ConfigError: what the settings say of it can't be.
    """
    match settings.evaluator:
        case "embedded":
            return EmbeddedEvaluator()
        case "opa":
            return OpaEvaluator(path=settings.opa_path, url=settings.opa_url)
        case "wasm":
            return WasmEvaluator(opa_path=settings.opa_path)
