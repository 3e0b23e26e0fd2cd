"""Results as tables: for the terminal after a run, and for the README.

    python -m tests.gpu.report      rewrites the README's table from the newest result

The README says "not yet measured" where there is no result; a test holds it to that.
"""

import sys
from pathlib import Path

from tests.gpu.records import Record, newest_result

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- gpu results -->\n", "<!-- end of gpu results -->"
WORKLOADS = ("long answers", "known beginning", "predicted answer", "served", "start")
NOT_MEASURED = """\
Speed on GPUs: not yet measured. `python -m tests.gpu.run` measures it; of a model alone, Llama
3.1 8B's shape, `python -m tests.gpu.run --only facts,engine,long,known,predicted,served,start`.
"""


def summary(records: list[Record]) -> str:
    """What a run saw, short enough for a screen."""
    wrong = [r for r in records if r.get("right") is False or "failed" in r]
    right = sum(r.get("right") is True for r in records)
    skipped = [r for r in records if r["part"] == "skipped"]
    lines = [f"{right} correct, {len(wrong)} wrong or failed, {len(skipped)} skipped"]
    lines += [f"skipped: {r['name']}, for {r['why']}" for r in skipped]
    lines += ["", *_kernel_rows(records), "", *_engine_rows(records)]
    lines += ["", *_workload_rows(records)]
    lines += [f"{r['rows']:4} rows {r['us_per_step']:10.1f} us/step  {r['kernels']}"
              for r in records if r["part"] == "profile" and "kernels" in r]  # fmt: skip
    return "\n".join(lines)


def markdown(name: str, records: list[Record]) -> str:
    """The tables of the README."""
    device = next((r["device"] for r in records if r["part"] == "facts"), "unknown GPU")
    head = f"Measured on one {device} (`tests/gpu/results/{name}.json`).\n\n"
    tables = [_kernel_rows(records), [""], _engine_rows(records), [""], _workload_rows(records)]
    return head + "\n".join(line for table in tables for line in table) + "\n"


def readme_table() -> str:
    """What belongs between the marks in the README."""
    newest = newest_result()
    return NOT_MEASURED if newest is None else markdown(*newest)


def _kernel_rows(records: list[Record]) -> list[str]:
    """Each kernel and case: its time, and its share of the rates that the same run measured."""
    timed = [r for r in records if r["part"] == "kernels" and "us" in r]
    ceilings = next((r for r in records if r["part"] == "ceilings"), None)
    if not timed or ceilings is None:
        return ["No kernel was timed."]
    rows = [
        "| kernel | case | us | GB/s | of copy | TFLOP/s | of bf16 |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for r in timed:
        copy, product = r["gb_s"] / ceilings["copy_gb_s"], r["tflop_s"] / ceilings["bf16_tflop_s"]
        rows.append(
            f"| {r['kernel']} | {r['case']} | {r['us']:.1f} | {r['gb_s']:.0f} | {copy:.0%} "
            f"| {r['tflop_s']:.1f} | {product:.0%} |"
        )
    return rows


def _engine_rows(records: list[Record]) -> list[str]:
    """Tokens a second, ours and transformers'; of ours the share of the copy that reads weights."""
    runs = [r for r in records if r["part"] in ("engine", "transformers") and "tokens_per_s" in r]
    copy = next((r["copy_gb_s"] for r in records if r["part"] == "ceilings"), None)
    if not runs:
        return ["No engine was timed."]
    rows = [
        "| Llama-3.1-8B shape, bf16 | rows | tokens/s | ms a step | host's share of it | of copy |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for r in runs:
        who = (
            r["part"] if "graphs" not in r else "ingot" if r["graphs"] else "ingot, no CUDA graphs"
        )
        host = f"{r['host_share']:.1%}" if "host_share" in r else ""
        read = f"{r['read_gb_s'] / copy:.0%}" if copy and "read_gb_s" in r else ""
        speed = f"{r['tokens_per_s']:.0f} | {r['decode_ms']:.2f}"
        rows.append(f"| {who} | {r['rows']} | {speed} | {host} | {read} |")
    return rows


def _workload_rows(records: list[Record]) -> list[str]:
    """What a whole model was asked, and every number that it gave."""
    rows = ["| Llama-3.1-8B shape, bf16 | rows or tokens | |", "|---|--:|---|"]
    for r in records:
        if r["part"] in WORKLOADS:
            size = r.get("rows", r.get("tokens"))
            rows.append(f"| {r['part']} | {size} | {_listed(r)} |")
    return rows if len(rows) > 2 else ["No workload was run."]


def _listed(record: Record) -> str:
    """Its numbers by name; those of a start are cold, then warm."""
    if record["part"] == "start":
        cold, warm = record["cold"][0], record["warm"][0]
        return ", ".join(f"{k} s {v:.1f}, warm {warm[k]:.1f}" for k, v in cold.items())
    numbers = {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and name not in ("rows", "tokens")
    }
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in numbers.items()
    )


def rewrite(text: str, table: str) -> str:
    """A README with `table` between its marks."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(rewrite(README.read_text(), readme_table()))
    sys.exit(0)
