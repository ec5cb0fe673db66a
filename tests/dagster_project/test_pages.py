"""A stage's report as a page of its own."""

from types import SimpleNamespace

from dagster_project import pages, resources


def test_the_page_says_when_where_and_by_which_code(tmp_path, monkeypatch):
    pipeline = SimpleNamespace(
        root=tmp_path,
        stage_dir=lambda stage: tmp_path / "data" / stage,
        params=SimpleNamespace(run=SimpleNamespace(profile="smoke")),
    )
    assert pages.write_page(pipeline, "poses", 1.0) is None
    assert not (tmp_path / "reports").exists()
    source = tmp_path / "data" / "benchmark" / "report.html"
    source.parent.mkdir(parents=True)
    source.write_text("<table><!-- made --></table>")
    git = {"mlflow.source.git.commit": "0123456789abcdef", "git.dirty": "true"}
    monkeypatch.setattr(resources, "git_tags", lambda root: git)
    page = pages.write_page(pipeline, "benchmark", 200.0)
    assert page == tmp_path / "reports" / "benchmark" / "index.html"
    text = page.read_text()
    for told in ("0123456789ab and changes", "smoke", "3 min", " UTC", " cores, "):
        assert told in text
    assert source.read_text() == "<table><!-- made --></table>", "the data stay as they are"
