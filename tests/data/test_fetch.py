"""Downloads, from a server on this machine: resume, wrong hash, a web page, errors, and the whole verb."""

import hashlib
import http.server
import io
import re
import threading

import pytest

from benchmark import data, files
from benchmark.cli import data as cli
from benchmark.data.importing import fetch
from benchmark.errors import UserError
from benchmark.screen import Screen

CONTENT = bytes(range(256)) * 3000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; ``server.stop_at`` cuts answers short, ``server.ranges``: whether parts are served."""

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.stop_at])

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that hangs up on a web page is as it should be."""


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges, server.stop_at, server.kind, server.asked = {"/f": CONTENT}, True, None, "x/y", []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


def test_download(server, tmp_path):
    seen = []
    fetch.download(f"{server.url}/f", tmp_path / "f", MD5, lambda done, total: seen.append((done, total)))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    fetch.download(f"{server.url}/f", tmp_path / "f", MD5)
    assert server.asked == [None], "what is here and right is not fetched again"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_stopped_goes_on(ranges, server, tmp_path):
    server.stop_at, server.ranges = 100_000, ranges
    with pytest.raises(UserError, match=r"stopped .*run the same command again to go on"):
        fetch.download(f"{server.url}/f", tmp_path / "f", MD5)
    assert (tmp_path / "f.part").stat().st_size == 100_000
    server.stop_at = None
    fetch.download(f"{server.url}/f", tmp_path / "f", MD5)
    assert server.asked == [None, "bytes=100000-"]
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert not (tmp_path / "f.part").exists()


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT)
    fetch.download(f"{server.url}/f", tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_wrong_hash_is_refused_and_removed(server, tmp_path):
    with pytest.raises(UserError, match=f"has checksum {MD5}, expected 0123.*removed, fetch again"):
        fetch.download(f"{server.url}/f", tmp_path / "f", "0123")
    assert not list(tmp_path.iterdir())


def test_a_web_page_is_refused(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="answered with a web page, not a file; download it by hand"):
        fetch.download(f"{server.url}/f", tmp_path / "f", MD5)
    assert not list(tmp_path.iterdir())


def test_errors_of_server_and_network(server, tmp_path):
    with pytest.raises(UserError, match="answered 404 Not Found"):
        fetch.download(f"{server.url}/none", tmp_path / "f", MD5)
    server.server_close()
    with pytest.raises(UserError, match=r"stopped \(.*refused"):
        fetch.download("http://127.0.0.1:9/f", tmp_path / "f", MD5)


def test_addresses_are_torchvisions():
    assert {file for file in fetch.addresses("omniglot")} == {"images_background.zip", "images_evaluation.zip"}
    assert fetch.addresses("fc100") == fetch.addresses("cifar-fs")
    (file, (url, md5)), *_ = fetch.addresses("cifar-fs").items()
    assert file == "cifar-100-python.tar.gz"
    assert url.endswith(file)
    assert len(md5) == 32
    with pytest.raises(UserError, match="cub has no public address: `python -m benchmark data import cub PATH`"):
        fetch.addresses("cub")
    with pytest.raises(UserError, match=r"nothing to fetch for 'omniglt' .did you mean 'omniglot'"):
        fetch.addresses("omniglt")


def test_who_waits_for_a_download_gets_it(server, tmp_path, monkeypatch):
    """The lock outlives what was downloaded: the folder is another process's once this one has done."""
    monkeypatch.setattr(fetch, "addresses", lambda name: {"f": (f"{server.url}/f", MD5)})
    waits, found, acquire = threading.Event(), [], files.acquire

    def second():
        try:
            with fetch.fetched("x", tmp_path) as path:
                found.append(path.read_bytes() == CONTENT)
        except UserError as error:
            found.append(str(error))

    with fetch.fetched("x", tmp_path) as path:
        monkeypatch.setattr(files, "acquire", lambda *how, **which: waits.set() or acquire(*how, **which))
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
    thread.join()
    assert found == [True]
    assert [left.name for left in path.parent.iterdir()] == [".lock"]


def test_the_bar_is_there_while_it_downloads(server, forms, tmp_path, monkeypatch):
    path = forms.write_tar(tmp_path / "c.tar.gz", forms.cifar_pickles(), "w:gz")
    content, shown = path.read_bytes(), io.StringIO()
    server.files = {"/c": content}
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(fetch, "addresses", lambda name: {"c.tar.gz": (f"{server.url}/c", md5)})
    monkeypatch.setattr(cli, "log", lambda: Screen(file=shown, force_terminal=True, width=100))
    assert forms.run_cli("fetch", "fc100", "--data-root", tmp_path / "root") == 0
    assert re.search(rf"fetching fc100 .*{len(content)}/{len(content)}", shown.getvalue())
    assert re.search(r"importing fc100 .*200/200", shown.getvalue())


def test_the_whole_verb(server, forms, tmp_path, monkeypatch, capsys):
    path = forms.write_tar(tmp_path / "c.tar.gz", forms.cifar_pickles(), "w:gz")
    server.files = {"/c": path.read_bytes()}
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(fetch, "addresses", lambda name: {"c.tar.gz": (f"{server.url}/c", md5)})
    root = tmp_path / "root"
    assert forms.run_cli("fetch", "fc100", "--data-root", root) == 0
    assert "imported fc100: 200 images of 100 classes" in capsys.readouterr().out
    assert len(data.load("fc100", root).splits["train"]) == 60
    assert not list((root / ".downloads").rglob("*.gz")), "what was imported is not kept twice"
