"""Which photos make the dataset, and which shard each goes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from photomaker.dataset.shards import (
    FINAL,
    as_json,
    write_atomically,
    write_parquet,
    write_table,
)
from photomaker.dataset.stage_files import DROPPED, StageFiles, read_parquet
from photomaker.dataset.stages import SHARD, Shard


def plan_shards(
    folder: Path, last: StageFiles, schema: pa.Schema, settings: Shard, note: Callable[[str], None]
) -> None:
    """Choose which photos make the dataset, and which shard each goes to; nothing where that is done.

    Args:
        folder: Of the last stage, where the plan is written.
        last: What the stage before it keeps.
        schema: Its columns.
        settings: Sizes of shards and people.
        note: Is told what the user should know.
    """
    if (folder / "plan.json").is_file():
        return
    needed = [name for name in FINAL.names if name in schema.names]
    parts = [_light(read_parquet(last.kept(unit), columns=needed)) for unit in range(last.units)]
    table = pa.concat_tables(parts).sort_by("key")
    reasons = _unfit(table, settings.least)
    stay = pc.is_null(pa.array([reason for reason, _ in reasons], pa.string()))
    gone = [{"stage": SHARD, "reason": reason, "detail": detail} for reason, detail in reasons if reason]
    rows = table.filter(pc.invert(stay)).to_pylist()
    dropped = [{**row, **told} for row, told in zip(rows, gone, strict=True)]
    kept = table.filter(stay).select(["key", "person", "shard"])
    shards = -(-kept.num_rows // settings.size)
    targets = [row * shards // kept.num_rows for row in range(kept.num_rows)]
    plan = kept.append_column("target", pa.array(targets, pa.int32()))
    write_table(folder / "plan.dropped.parquet", dropped, DROPPED)
    write_parquet(folder / "plan.parquet", plan)
    people = pc.count_distinct(kept["person"]).as_py()
    lost = pc.count_distinct(table["person"]).as_py() - people
    if lost:
        note(f"{lost} people have fewer than {settings.least} photos left and are dropped")
    if not kept.num_rows:
        note("no photo is left for the dataset; the report says why")
    counts = {"shards": shards, "photos": kept.num_rows, "people": people, "came": table.num_rows}
    write_atomically(folder / "plan.json", as_json(counts))


def _light(table: pa.Table) -> pa.Table:
    """The columns by which a row is known, and whether any other of it is missing."""
    lacking = [
        pc.if_else(pc.is_null(table[name]), f"{name} ", "")
        for name in table.column_names
        if name not in ("key", "person", "shard", "source")
    ]
    told = pc.binary_join_element_wise(*lacking, "") if lacking else pa.array([""] * table.num_rows)
    return table.select(["key", "person", "shard", "source"]).append_column("lacks", told)


def _unfit(table: pa.Table, least: int) -> list[tuple[str | None, str]]:
    """Reason and detail for each row that cannot stay, (None, "") for the others."""
    people, lacks = table["person"].to_pylist(), table["lacks"].to_pylist()
    whole = Counter(person for person, lack in zip(people, lacks, strict=True) if not lack)
    found: list[tuple[str | None, str]] = []
    for person, lack in zip(people, lacks, strict=True):
        if lack:
            found.append(("incomplete", f"without {lack.strip()}"))
        elif whole[person] < least:
            found.append(("too few photos", f"{whole[person]} of at least {least}"))
        else:
            found.append((None, ""))
    return found
