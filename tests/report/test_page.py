"""The page: its numbers, its safety, its accessibility; and, where a Chromium is installed, how a browser sees it."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from benchmark import report
from benchmark.files import parse_table
from benchmark.report import build, table
from benchmark.report.group import group_runs
from benchmark.report.html import sections
from benchmark.runs.store import load_runs
from tests.report.builder import build_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=5000",
]  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr", "source"}


class Page(HTMLParser):
    """Tables as {id: (header, [[(text, attributes)]])}, every tag with its attributes, and whether tags balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, tuple[list[str], list[list[tuple[str, dict[str, str | None]]]]]] = {}
        self.open: list[str] = []
        self.text = ""
        self._cell: list[str] | None = None
        self._head = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs)["id"], ([], []))
        elif tag == "thead":
            self._head = True
        elif tag == "tr" and not self._head:
            self._table[1].append([])
        elif tag in ("th", "td"):
            self._cell, self._attrs = [], dict(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "thead":
            self._head = False
        if tag in ("th", "td"):
            text = "".join(self._cell).replace("\xa0", " ")
            self._cell = None
            if self._head:
                self._table[0].append(text)
            else:
                self._table[1][-1].append((text, self._attrs))

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on three methods and the baseline, two shots, a fourth diverged; (page, folder, text)."""
    folder = tmp_path_factory.mktemp("made")
    for shots in (1, 5):
        build_run(folder / "results", "pixels", mean=0.3, shots=shots)
        for method, mean in (("maml", 0.48), ("md", 0.55), ("metasgd", 0.5)):
            build_run(folder / "results", method, mean=mean + 0.1 * (shots == 5), shots=shots, seed=0)
    build_run(folder / "results", "ecml", state="diverged")
    report.write(folder / "results", folder / "reports")
    text = (folder / "reports" / "index.html").read_text()
    return Page(text), folder / "reports", text


def test_numbers_in_the_page_are_those_of_the_csv(made):
    page, folder, _ = made
    table = parse_table((folder / "table1.csv").read_bytes())
    header, body = page.tables["table1-0"]
    for line in body:
        label = line[0][0].removesuffix(" *").removesuffix(" †")
        for shots in (1, 5):
            text, attributes = line[header.index(f"{shots}-shot, ours (controlled recipe)")]
            rows = table[(table["label"] == label) & (table["shots"] == shots)]
            if rows.empty or np.isnan(rows["mean"].iloc[0]):
                assert attributes["data-value"] == ""
                assert text in ("–", "diverged")
            else:
                row = rows.iloc[0]
                assert float(attributes["data-value"]) == row["mean"]
                assert text == f"{row['mean']:.2f} ± {row['half_tasks']:.2f}"
                assert ("best" in attributes["class"]) == row["best_or_tied"]
    pairs = parse_table((folder / "pairs.csv").read_bytes())
    shown = [line for name, (_, lines) in page.tables.items() if name.startswith("pairs-") for line in lines]
    assert len(shown) == len(pairs) == 12
    by_name = {(f"{row['a']} − {row['b']}", row["difference"]) for _, row in pairs.iterrows()}
    assert {(line[0][0], float(line[1][1]["data-value"])) for line in shown} == by_name
    claims = parse_table((folder / "claims.csv").read_bytes())
    for key in claims["claim"].unique():
        _, lines = page.tables.get(f"checks-{key}", ([], []))
        expected = claims[(claims["claim"] == key) & (claims["where"] != "–")]
        assert [line[2][0] for line in lines] == list(expected["verdict"])
        assert [line[3][0] for line in lines] == list(expected["number"])


def test_the_page_needs_nothing_but_itself(made):
    page, _, text = made
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            link = attributes.get(name) or ""
            assert link.startswith(("data:", "#")) or not link, (tag, link)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_accessibility_basics(made):
    page, _, _ = made
    assert ("html", {"lang": "en"}) in page.tags
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) >= 5
    assert all(len(attributes["alt"]) > 60 and attributes["width"] for attributes in images)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert set(targets) <= set(identities)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert not page.open


def luminance(color: str) -> float:
    """WCAG 2 relative luminance of ``#rgb`` or ``#rrggbb``."""
    digits = color.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(made, dark):
    light, _, night = made[2].partition("prefers-color-scheme: dark")
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", night.partition("box-sizing")[0] if dark else light))
    pairs = [("ink", "paper"), ("soft", "paper"), ("link", "paper"), ("ink", "tint"), ("soft", "tint")]
    pairs += [("good", "good-tint"), ("bad", "bad-tint"), ("ink", "bad-tint")]
    for front, back in pairs:
        values = sorted(luminance(colors[name]) for name in (front, back))
        assert (values[1] + 0.05) / (values[0] + 0.05) >= 4.5, (front, back)


def test_the_page_leads_with_the_answer_and_folds_what_comes_after_the_claims(made):
    page, _, text = made
    order = [text.index(f'id="{name}"') for name in ("answer", "table1-0", "claims", "pairs", "figures", "runs")]
    assert order == sorted(order)
    assert text.index('id="figure-fig1-glyphs-5way-1shot-controlled"') < text.index('id="claims"')
    assert "5-way glyphs: at 1 shot (controlled recipe) MD has" in page.text
    assert "With one seed this is of these trained models, and not of the methods." in page.text
    for name in ("pairs", "figures", "runs"):
        assert re.search(rf'aria-labelledby="{name}"><details><summary>', text)


def test_every_number_of_the_table_leads_to_its_runs(made):
    _, _, text = made
    body = text.partition('<table id="table1-0"')[2].partition("</table>")[0]
    links = re.findall(r'<a href="#(cell-\d+)">([\d.]+)', body)
    assert len(links) == 8
    for target, number in links:
        inside = text.partition(f'<details id="{target}">')[2]
        assert inside.startswith("<summary>")
        assert number in inside.partition("</summary>")[0]
        assert 'class="record"' in inside.partition("</summary>")[2][:60]


def test_a_choice_is_offered_where_there_is_more_than_one(made):
    page, _, text = made
    keys = [attributes["data-filter"] for tag, attributes in page.tags if tag == "select"]
    assert keys == ["shots"]  # one data set, one recipe
    assert 'data-shots="5"' in text


def test_a_claim_says_what_it_needs_and_no_verdict_twice(made):
    page, _, _ = made
    header, lines = page.tables["verdicts"]
    assert header == ["Claim", "Verdict", "Checks", "Needs"]
    assert all("eeds" in line[3][0] or "Timing" in line[3][0] or "search" in line[3][0] for line in lines)
    assert all(line[1][0] not in line[2][0] for line in lines)


def test_a_phone_gets_figures_with_stacked_panels(made):
    page, _, _ = made
    sources = [attributes for tag, attributes in page.tags if tag == "source"]
    assert len(sources) == sum(tag == "img" for tag, _ in page.tags)
    assert all(each["media"] == "(max-width: 40rem)" for each in sources)


def test_long_run_names_do_not_head_lines(made):
    _, lines = made[0].tables["run-list"]
    assert [line[0][0] for line in lines if "md" in line[0][0]] == ["md, seed 0", "md, seed 0"]
    assert all(line[-1][1]["class"] == "text name" for line in lines)


def test_runs_are_listed_with_spec_environment_and_command(made):
    page, _, _ = made
    _, lines = page.tables["run-list"]
    assert len(lines) == 9
    assert "python -m benchmark run --methods ecml" in page.text
    for word in ("meta_batch", "2.14.1", "abc1234"):
        assert word in page.text


def test_names_cannot_become_markup(add_run, results, tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>$main"
    add_run(evil, dataset="<b>cats</b>", environment={"device": evil}, status={"message": evil})
    add_run("maml", dataset="<b>cats</b>", options={"adapt": evil})
    report.write(results, tmp_path / "reports")
    page = Page((tmp_path / "reports" / "index.html").read_text())
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(tag == "b" or attributes.get("src") == "x" for tag, attributes in page.tags)
    assert evil in page.text


def test_warnings_of_what_does_not_compare(add_run, results, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "drawings", lambda *_: [])
    add_run("maml", environment={"torch": "2.12.0", "commit": "abc+"}, query_test=5)
    add_run("md", seed=1, tasks=100)
    add_run("md", seed=2, tasks=100, state="diverged")
    add_run("md", seed=3, tasks=100, environment={"continued": [{"after": 7, "device": "cuda (a card)"}]})
    add_run("metasgd", shots=5, state="interrupted", tasks=100)
    report.write(results, tmp_path / "reports")
    text = (tmp_path / "reports" / "warnings.md").read_text().replace("\\", "")
    page = Page((tmp_path / "reports" / "index.html").read_text()).text
    for found in (
        "mixed torch versions: 2.12.0, 2.14.1",
        "mixed devices: cpu, cuda (a card)",
        "marked +",
        "query images per class at test: 5, 15",
        "numbers of test tasks: 100, 200",
        "diverged: MD 1-shot (1 of 3)",
        "not finished: glyphs-5way-5shot-metasgd",
        "few seeds",
        "no run of MT-net, WarpGrad",
        "MetaSGD has no 1-shot run",
    ):
        assert found in text
        assert found in page


@pytest.mark.usefixtures("figures_unrendered")
@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single_results_make_a_page(add_run, results, tmp_path, count):
    if count:
        add_run("maml")
    report.write(results, tmp_path / "reports")
    page = Page((tmp_path / "reports" / "index.html").read_text())
    assert ("There are no runs" in page.text) == (not count)
    assert ("1 run," if count else "0 runs") in page.text
    assert "not testable here" in page.text


@pytest.mark.usefixtures("figures_unrendered")
def test_three_seeds_everywhere_are_few_and_one_number(add_run, results, tmp_path):
    for seed in range(3):
        add_run("maml", seed=seed, tasks=10)
    report.write(results, tmp_path / "reports")
    assert "few seeds (3 seeds):" in (tmp_path / "reports" / "warnings.md").read_text()


def dump(path, tmp_path, *flags):
    """The document as Chromium leaves it after running its scripts, and what the console said."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, "--enable-logging=stderr", "--v=0"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_in_chromium_it_sorts_and_fits_a_phone(made, tmp_path):
    _, folder, text = made
    whole, log = dump(folder / "index.html", tmp_path)
    assert "The answer" in whole
    assert "CONSOLE" not in log, log
    probe = """<script>addEventListener("load", () => {
      const table = document.getElementById("table1-0"), out = [];
      const button = table.querySelectorAll("thead button")[2];
      for (let turn = 0; turn < 2; turn++) {
        button.click();
        out.push(Array.from(table.tBodies[0].rows).map((row) => row.cells[2].dataset.value).join(","));
      }
      out.push(button.parentNode.getAttribute("aria-sort"));
      out.push(document.documentElement.scrollWidth <= innerWidth);
      out.push(Array.from(document.images).every((image) => image.complete && image.naturalWidth > 100));
      document.body.innerHTML = "<pre>" + out.join("|") + "</pre>";
    });</script>"""
    probed = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", probe + "</body>")
    (tmp_path / "probe.html").write_text(probed)
    shown, _ = dump(tmp_path / "probe.html", tmp_path, "--window-size=390,800")
    up, down, state, fits, images = re.search(r"<pre>(.*)</pre>", shown)[1].split("|")
    values = [float(value) for value in up.split(",") if value]
    assert values == sorted(values)
    assert len(values) == 4
    assert up.split(",")[-1] == down.split(",")[-1] == ""  # the diverged row stays last
    assert [float(value) for value in down.split(",") if value] == values[::-1]
    assert (state, fits, images) == ("descending", "true", "true")


def test_seeds_are_said_of_each_column_where_they_differ(add_run, results):
    """Three seeds at 1 shot and one at 5: neither sentence, column nor cell lends the seeds of one to the other."""
    for method in ("maml", "md"):
        for seed in range(3):
            add_run(method, seed=seed, mean=0.5 + 0.2 * (method == "md"))
        add_run(method, shots=5, mean=0.6)
    (each,) = table.tables(group_runs(load_runs(results)))
    lead = sections.sentence(each)
    one, five = lead.split("; ")
    assert one.endswith("beyond chance above all others (3 seeds)")
    assert "(one seed). What rests on fewer than 3 seeds is of these trained models" in five
    titles = [column.title for column in table.columns(each)]
    assert "1-shot, ours (controlled recipe, 3 seeds)" in titles
    assert "5-shot, ours (controlled recipe, one seed)" in titles
    assert not any("seed" in place.text for column in table.columns(each) for place in column.places)
