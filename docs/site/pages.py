"""The pages of the site: the Markdown files of the repository as they are, the methods from their cards, the API.

Every page lies at the same place as in the repository, so that its links hold in both; what they lead to comes along.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from equations import html  # noqa: E402
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from optimizers import registry  # noqa: E402
from optimizers.cards import KINDS  # noqa: E402
from optimizers.pages import equation_lines  # noqa: E402

REPORT = "reports/reference/"
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
METHODS = "docs/methods/"
TUTORIALS = "docs/tutorials/"
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)")
ONE_STEP = re.compile(r"(## One step\n\n)```\n(.*?)```\n", re.DOTALL)
API = {
    "Methods": [f"optimizers.{name}" for name in ("available", "create", "card", "options", "register")],
    "The contract": [f"optimizers.base.{name}" for name in ("InnerOptimizer", "Card", "Task", "Trajectory")],
    "Trying a method on the contract": ["optimizers.testing.check_inner_optimizer"],
    "The inner loop, and the gradient through it": [
        *("benchmark.networks.create", "benchmark.adapt.adapt", "benchmark.adapt.unroll"),
        "benchmark.metagrad.meta_gradient",
    ],
    "Measuring": [
        *("benchmark.metagrad.evaluate_batch", "benchmark.metagrad.Evaluation"),
        *("benchmark.statistics.paired", "benchmark.statistics.Paired"),
    ],
    "Data": [f"benchmark.data.{name}" for name in ("load", "sample", "Episodes")],
    "Results": ["benchmark.runs.store.load_runs", "benchmark.runs.store.Run"],
    "Released weights": ["optimizers.block_iaf.load_released"],
}
"""The stable names."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    guides = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    config.nav = [
        {"Home": "README.md"},
        {"Tutorials": [TUTORIALS + "index.md", *_below(TUTORIALS)]},
        {"Methods": [METHODS + "index.md", *({name: f"{METHODS}{name}.md"} for name in registry.builtin())]},
        {"Guides": [f"docs/{name}" for name in guides]},
        {"API": "docs/api.md"},
        {"Results": [{"Table 1": REPORT + "table1.md"}, {"Claims": REPORT + "claims.md"}]},
        {"Contributing": ["CONTRIBUTING.md", "CHANGELOG.md"]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = [*TOP, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]
    pages += [str(path.relative_to(ROOT)) for path in sorted((ROOT / REPORT).glob("*.md"))]
    for name in dict.fromkeys([*pages, *(target for page in pages for target in _linked(page))]):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for name, text in {
        METHODS + "index.md": methods(),
        TUTORIALS + "index.md": tutorials(),
        "docs/api.md": api(),
    }.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **rest: object) -> str:
    where = (ROOT / page.file.src_uri).parent
    markdown = LINK.sub(lambda link: link[0] + ("/index.md" if (where / link[2]).is_dir() else ""), markdown)
    return ONE_STEP.sub(lambda step: step[1] + _equations(step[2]), markdown)


def methods() -> str:
    """All methods of the registry, kind by kind."""
    cards = {name: registry.card(name) for name in registry.builtin()}
    lines = ["# Methods", "", "By what is learned of the update. Each page is made from the method's card.", ""]
    for kind in dict.fromkeys([*KINDS, *(card.kind for card in cards.values())]):
        names = [name for name, card in cards.items() if card.kind == kind]
        if names:
            meaning = KINDS.get(kind, "")
            lines += [f"## {kind.capitalize()}", "", f"{meaning[:1].upper()}{meaning[1:]}.", ""]
            lines += ["| method | one step | learned |", "|---|---|---|"]
        for name in names:
            first = html(equation_lines(cards[name].equation)[0])
            lines.append(f"| [{cards[name].title}]({name}.md) | {first} | {cards[name].learned} |")
        lines.append("")
    return "\n".join(lines)


def tutorials() -> str:
    titles = ((ROOT / page).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for page in _below(TUTORIALS))
    entries = (f"- [{title}]({Path(page).name})" for title, page in zip(titles, _below(TUTORIALS), strict=True))
    return "\n".join(
        ["# Tutorials", "", "Each runs as it stands, in under a minute; a test does it.", "", *entries, ""]
    )


def api() -> str:
    lines = ["# API", "", "The names that notebooks and plug-ins can rely on.", ""]
    for title, names in API.items():
        lines += [f"## {title}", "", *(f"::: {name}\n" for name in names)]
    return "\n".join(lines)


def _below(folder: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).glob("*.md"))]


def _linked(page: str) -> list[str]:
    """Files of the repository, other than pages, that a page leads to."""
    path = ROOT / page
    found = (path.parent / link[1] for link in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link[1])
    return [str(each.resolve().relative_to(ROOT)) for each in found if each.is_file() and each.suffix != ".md"]


def _equations(text: str) -> str:
    return '<div class="equations">' + "".join(f"<p>{html(line)}</p>" for line in text.splitlines()) + "</div>\n"
