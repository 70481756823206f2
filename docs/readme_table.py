"""Write README's table of results from the committed reports: ``python docs/readme_table.py``."""

import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmark.files import write_atomic  # noqa: E402
from benchmark.recipes import BASELINE  # noqa: E402
from benchmark.report.published import MINIIMAGENET, dataset_title  # noqa: E402

README = ROOT / "README.md"
SOURCES = (("reference", "glyphs", "controlled"), ("study", "cifar-fs", "tuned"))  # report, data set, recipe
BEGIN, END = "<!-- by docs/readme_table.py -->\n", "<!-- end -->\n"


def table() -> str:
    """Accuracy in % of every method with a result, ± over seeds; in brackets what is printed for the same data set.

    The last columns are what the papers print for miniImageNet. Bold: what may be the best of its column.
    """
    rows = [row for source in SOURCES for row in _rows(*source)]
    columns = list(dict.fromkeys((row["dataset"], int(row["shots"])) for row in rows))
    cells = {(row["method"], row["dataset"], int(row["shots"])): row for row in rows}
    heads = [f"{dataset_title(dataset)} {shots}-shot" for dataset, shots in columns]
    lines = ["| method | " + " | ".join([*heads, "paper 1-shot", "5-shot"]) + " |"]
    lines.append("|---|" + "--:|" * (len(columns) + 2))
    unsettled = {row["method"] for row in rows if "reconstructed" in row["remark"]}
    names = {row["method"]: row["label"] for row in rows}
    for method, label in names.items():
        name = label + (" \\*" if method in unsettled else "")
        name += "" if method == BASELINE else f" `{method}`"
        ours = [_cell(cells.get((method, *column))) for column in columns]
        printed = (MINIIMAGENET.printed(method, shots) for shots in (1, 5))
        papers = [f"{number.mean:.1f}" if number else "–" for number in printed]
        lines.append("| " + " | ".join([name, *ours, *papers]) + " |")
    return "\n".join(lines) + "\n"


def _rows(report: str, dataset: str, recipe: str) -> list[dict[str, str]]:
    with open(ROOT / "reports" / report / "table1.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row["dataset"], row["recipe"]) == (dataset, recipe)]


def _cell(row: dict[str, str] | None) -> str:
    if row is None or not row["mean"]:
        return "–"
    text = f"{float(row['mean']):.1f}"
    if row["best_or_tied"] == "True":
        text = f"**{text}**"
    if row["sd_seeds"]:
        text += f" ± {float(row['sd_seeds']):.1f}"
    same = row["published"] and row["published_on"] == dataset_title(row["dataset"])
    return f"{text} [{float(row['published']):.1f}]" if same else text


def with_table(readme: str) -> str:
    """The text of README with the table of today between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    write_atomic(README, with_table(README.read_text(encoding="utf-8")).encode())
