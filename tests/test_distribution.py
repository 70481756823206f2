"""What a stranger gets: the wheel and the source distribution, what they hold, and that they run outside a checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import benchmark
from benchmark.runs import environment
from optimizers import pages, registry
from tests.conftest import ROOT
from tests.test_style import TOOLS

BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
SOURCES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions, built as ``python -m build`` does, from a copy and with no network."""
    if not SOURCES:
        pytest.skip("not a git checkout")
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if not name.startswith(("results/", "reports/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob(f"*-{benchmark.__version__}-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(n for n in names if n.endswith("dist-info/METADATA"))).decode()
        (page,) = (archive.read(n).decode() for n in names if n.endswith("methods/maml.md"))
    packaged = {n for n in SOURCES if n.startswith(("benchmark/", "optimizers/")) and (ROOT / n).is_file()}
    info = f"inner_optimizer_benchmark-{benchmark.__version__}"
    assert {n for n in names if not n.startswith(info)} == packaged
    assert f"{info}.dist-info/licenses/LICENSE" in names
    methods = f"{info}.data/data/share/doc/inner-optimizer-benchmark/methods/"
    assert {f"{methods}{name}.md" for name in registry.builtin()} <= names
    assert page.startswith(pages.page("maml", [])[:200])
    assert "License-Expression: Apache-2.0" in metadata


def test_the_source_distribution_holds_what_a_packager_needs(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "bootstrap.sh", "tests/test_distribution.py"} <= names
    assert {f"docs/methods/{name}.md" for name in registry.builtin()} <= names
    assert not {name for name in names if name.startswith(("results/", "reports/", ".venv"))}


@pytest.mark.long
def test_the_wheel_runs_in_an_environment_and_a_folder_of_its_own(dist: Path, tmp_path: Path) -> None:
    """The dependencies are lent by a path file, the packages come from the wheel alone."""
    (wheel,) = dist.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    (site / "lent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(*words: str) -> str:
        line = [python, *words]
        done = subprocess.run(line, cwd=folder, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import benchmark; print(benchmark.__file__)").strip()).is_relative_to(site)
    small = ["--iterations", "2", "--tasks", "2", "--validation-tasks", "2", "--channels", "4", "--workers", "1"]
    run("-m", "benchmark", "run", "--methods", "md,metasgd", *small)
    run("-m", "benchmark", "report")
    assert (folder / "reports/index.html").is_file()
    assert run("-m", "benchmark", "list", "md") == (site.parents[2] / "share/doc").joinpath(
        "inner-optimizer-benchmark/methods/md.md"
    ).read_text(encoding="utf-8")


def test_one_version_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited
    assert newest
    assert cited[1] == newest[1] == benchmark.__version__
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_workflow_and_pre_commit_run_what_ci_and_make_check_run() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "run: sh .ci/run\n" in workflow
    lowest = next(line for line in (ROOT / "tests/lowest.txt").read_text().splitlines() if "pip install" in line)
    assert f"run: {lowest.strip('# ')}\n" in workflow
    hooks = re.findall(r"entry: \.venv/bin/python -m (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == TOOLS


def test_a_commit_is_recorded_of_this_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed into a virtual environment inside another project's repository, the suite has no commit."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "theirs"], check=True)
    package = tmp_path / "venv/site-packages/benchmark/__init__.py"
    package.parent.mkdir(parents=True)
    monkeypatch.setattr(benchmark, "__file__", str(package))
    assert environment.commit() == ""
    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "benchmark/__init__.py"))
    assert environment.commit() != ""
