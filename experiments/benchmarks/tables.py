"""Measurements as a Markdown table: medians over the rounds, ratios to the baseline of the same rounds, mean scores."""

from statistics import mean, median, stdev

HEADER = ("case", "way", "seconds", "rate", "times as fast", "validation top-1", "test top-1", "peak MiB", "note")


def table(measured: list[dict]) -> list[str]:
    """The lines of one section's table.

    A way is as fast as r times the baseline, the way that was measured first in its case, with r the median over the
    rounds of (the baseline's seconds a unit of work) / (the way's seconds a unit of work).
    """
    rows, baselines = {}, {}
    for row in measured:
        rows.setdefault((row["case"], row["way"]), []).append(row)
        baselines.setdefault(row["case"], row["way"])
    lines = [HEADER, ["---"] * len(HEADER)]
    lines += [cells(found, rows[case, baselines[case]]) for (case, _), found in rows.items()]
    return [f"| {' | '.join(line)} |" for line in lines]


def cells(found: list[dict], baseline: list[dict]) -> list[str]:
    """One way's row."""
    last = found[-1]
    return [
        last["case"],
        last["way"],
        summary(values(found, "seconds"), "{:.2f}"),
        summary([row["units"] / row["seconds"] for row in found if "units" in row], f"{{:.4g}} {last.get('unit')}/s"),
        summary(times_as_fast(found, baseline), "{:.2f}"),
        mean_and_spread(values(found, "validation_top1")),
        mean_and_spread(values(found, "test_top1")),
        summary(values(found, "peak_mib"), "{:.0f}", statistic=max),
        last.get("note", ""),
    ]


def times_as_fast(found: list[dict], baseline: list[dict]) -> list[float]:
    """A ratio for each round in which both were measured."""
    costs = {row["round"]: seconds_a_unit(row) for row in baseline if "seconds" in row}
    return [costs[row["round"]] / seconds_a_unit(row) for row in found if "seconds" in row and row["round"] in costs]


def seconds_a_unit(row: dict) -> float:
    return row["seconds"] / row.get("units", 1)


def values(found: list[dict], name: str) -> list[float]:
    return [row[name] for row in found if name in row]


def mean_and_spread(numbers: list[float]) -> str:
    """The mean, and the standard deviation where there are several; nothing where nothing was measured."""
    spread = f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{mean(numbers):.3f}{spread}" if numbers else ""


def summary(numbers: list[float], form: str, *, statistic=median) -> str:
    """The median, or another statistic; nothing where nothing was measured."""
    return form.format(statistic(numbers)) if numbers else ""
