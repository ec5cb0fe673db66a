"""Names and texts from the data are escaped in every page."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest
from starlette.testclient import TestClient

from assets.checks.pages import write_pages
from assets.checks.suite import Suite, critical
from assets.checks.validation import Outcome
from dagster_project.reports import application
from ml.benchmarks.gallery import Outcome as Shown
from ml.benchmarks.gallery import write_gallery
from ml.evaluation.report import write_report
from ml.filtering.matched_pairs import MatchedPair, Matches, write_pairs
from ml.imaging.io import encode_jpeg
from ml.labels.tool_export import gallery
from ml.records.atomic import write_bytes
from ml.records.shards import shard_writer
from ml.records.workspace import Workspace
from tests.fixtures.small_dataset import draw_image

NAME = """"><script>alert(1)</script><img src=x onerror=alert(1)>'&amp;#?%41 ü"""
"""What ends an attribute, a tag, an entity and an address."""


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def report(folder):
    metadata = {
        "protocol": NAME, "ground_truth": "exact", "num_images": 1, "num_heads": 1,
        "num_ignored": 0,
    }  # fmt: skip
    table = pd.DataFrame({NAME: [NAME]})
    write_bytes(folder / f"{NAME.replace('/', '')}.jpg", b"x")
    image = folder / f"{NAME.replace('/', '')}.jpg"
    return write_report(
        folder, {NAME: {}}, {NAME: table}, {NAME: NAME}, {NAME: image}, metadata, {NAME: NAME}
    )["html"].read_text()


def failures(folder):
    outcomes = [Shown(NAME, 1.0, ("missed",), NAME)]
    return write_gallery(folder, NAME, outcomes, draw_image, [NAME]).read_text()


def review(folder):
    row = {
        "sample_id": NAME, "width": 8, "height": 8, "boxes": [], "reason": NAME, "detail": NAME,
    }  # fmt: skip
    return gallery([row], NAME)


def pairs(folder):
    ws = Workspace(folder, 1, 1, 1)
    with shard_writer(ws.stage_dir("images") / "shard-00000.tar") as writer:
        writer.add(NAME.replace("/", ""), {"jpg": encode_jpeg(draw_image("a"))})
    (folder / "known").mkdir()
    pair = MatchedPair(NAME.replace("/", ""), "shard-00000", 0.9, "none")
    matches = Matches((pair,), {NAME: 1}, 0, 0, 0)
    return write_pairs(ws, matches, folder / "known", 0.5, "pairs").read_text()


def data_docs(folder):
    import great_expectations.expectations as gxe

    check = critical("known", gxe.ExpectColumnToExist, NAME, column="a")
    row = {"shard": NAME, "row": 1, "column": NAME, "value": NAME}
    outcome = Outcome("heads", "known", False, "critical", NAME, NAME, (row,), 1, 1)
    write_pages(folder, Suite("heads", lambda ws, shards: pd.DataFrame(), (check,)), [outcome])
    return (folder / "heads" / "index.html").read_text()


def listing(folder):
    # The test client decodes addresses twice.
    stage = folder / "data" / NAME.replace("/", "").replace("%41", "")
    stage.mkdir(parents=True)
    (stage / "report.html").write_text("x")
    client = TestClient(application(folder), base_url="http://127.0.0.1:3001")
    page = client.get("/").text
    # The link leads to the page.
    (link,) = [value for name, value in Elements(page).attributes if name == "href"]
    assert client.get(link).text == "x"
    return page


@pytest.mark.parametrize("page", [report, failures, review, pairs, data_docs, listing])
def test_a_name_is_text(page, tmp_path):
    found = Elements(page(tmp_path))
    assert "script" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "<script>alert(1)" in found.text
    places = [value for name, value in found.attributes if name in ("src", "href") and value]
    assert all(not place.lower().startswith(("javascript:", "x")) for place in places)


def test_the_image_of_a_review_is_found_whatever_its_name(tmp_path):
    found = Elements(review(tmp_path))
    (place,) = [value for name, value in found.attributes if name == "href"]
    assert not set(place) & set("#?")
    assert unquote(place) == f"images/{NAME}.jpg"
