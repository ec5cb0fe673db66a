"""Reports and Data Docs are served on a port of their own, behind the guard, and linked there."""

import socket

import pytest
from starlette.testclient import TestClient

from dagster_project import metadata
from dagster_project.reports import ADDRESS, application, report_url
from dagster_project.serve import Ports, _require_free

OWN = "http://127.0.0.1:3001"


@pytest.fixture
def root(tmp_path):
    for name in (
        "data/benchmark/report.html", "data/images/secret.parquet", "reports/data_docs/index.html",
        "reports/data_docs/truth/index.html", "params.html", "data/scores/tables.html",
        "data/scores/fddb/gallery.html",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("<p>here</p>")
    (tmp_path / "data/scores/tables.html").write_text("<title>All &amp; <b>more</b></title>")
    (tmp_path / "data/scores/fddb/gallery.html").write_text("<title>FDDB &lt;b&gt;</title>")
    return tmp_path


def test_pages_are_listed_and_served_and_nothing_else(root):
    client = TestClient(application(root), base_url=OWN)
    listing = client.get("/")
    assert 'href="/files/data/benchmark/report.html"' in listing.text
    assert 'href="/files/reports/data_docs/index.html"' in listing.text
    assert "truth" not in listing.text
    assert listing.text.index(">Checks<") < listing.text.index(">Results<")
    assert listing.text.count("data_docs/index.html") == 2  # its address and its name
    assert '"/files/data/scores/fddb/gallery.html">FDDB &lt;b&gt;</a>' in listing.text
    assert '"/files/data/scores/tables.html">tables.html</a>' in listing.text
    page = client.get("/files/data/benchmark/report.html")
    assert page.text == "<p>here</p>"
    assert "connect-src 'none'" in page.headers["content-security-policy"]
    for name in ("params.html", "data/images/secret.parquet", "../etc/passwd", "data/none.html"):
        assert client.get(f"/files/{name}").status_code == 404
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    dated = root / "reports/benchmark/index.html"
    dated.parent.mkdir()
    dated.write_text("<title>Dated</title>")
    again = client.get("/").text
    assert '"/files/reports/benchmark/index.html">Dated</a>' in again
    assert "data/benchmark/report.html" not in again
    assert client.get("/", headers={"origin": "http://127.0.0.1:3000"}).status_code == 403


def test_paths_of_pages_become_links_to_that_server(root, monkeypatch):
    assert report_url("data/a b.html") == "http://127.0.0.1:3001/files/data/a%20b.html"
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:4001")
    link = metadata._linked(root, "data/benchmark/report.html")
    assert link.value == "http://127.0.0.1:4001/files/data/benchmark/report.html"
    assert metadata._linked(root, "data/none.html").value == "data/none.html"


def test_ports_are_distinguished_and_taken_ones_named():
    assert Ports(1, 2, 3).mlflow == 2
    for wrong in ((1, 1, 2), (0, 1, 2), (1, 2, 70000)):
        with pytest.raises(ValueError, match="three different ports"):
            Ports(*wrong)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} cannot be used .* with --mlflow-port"):
            _require_free("mlflow", port)
