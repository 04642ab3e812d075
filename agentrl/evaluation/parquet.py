"""An evaluation's attempts as a parquet file, one row each, for whoever computes with them elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from agentrl.errors import MissingDependencyError
from agentrl.evaluation.result import EvaluationResult
from agentrl.files import write_whole

PARQUET = "results.parquet"


def save_parquet(result: EvaluationResult, folder: Path) -> None:
    """Columns are the fields of `Attempt`, cost, suite, version, hash and policy.

    Raises `MissingDependencyError` where the extra `data` is not installed, `StoreError` for what the disk does.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            'results.parquet needs pyarrow, which is not installed. Run: pip install "agentrl-framework[data]"'
        ) from error
    manifest = result.manifest
    told = {
        "suite": manifest.suite,
        "suite_version": manifest.version,
        "suite_hash": manifest.hash,
        "policy": manifest.policy,
    }
    rows = [{**told, **asdict(attempt), "cost": manifest.prices.of(attempt)} for attempt in result.attempts]
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    write_whole(folder / PARQUET, sink.getvalue().to_pybytes())
