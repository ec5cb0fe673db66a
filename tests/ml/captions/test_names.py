"""The name rule: names in every spelling are found, ordinary captions are left alone."""

import numpy as np
import pytest

from ml.captions.grammar import compose
from ml.captions.names import GazetteerNameDetector, NameDetector, name_list
from ml.records.ids import sample_rng

DETECTOR: NameDetector = GazetteerNameDetector()


@pytest.mark.parametrize(
    ("text", "found", "rule"),
    [
        ("a man in a park with Maria Garcia", "Maria Garcia", "first and last name"),
        ("maria garcia wearing a red shirt", "maria garcia", "first and last name"),
        ("MARIA GARCIA on stage", "MARIA GARCIA", "first and last name"),
        ("María García on a beach", "María García", "first and last name"),
        ("a photo of Rose Young", "Rose Young", "first and last name"),
        ("a portrait with Corvina Thistlemoor, smiling", "Corvina Thistlemoor", "capitalised pair"),
        ("two people, Jean-Luc Harkonnen and a dog", "Jean-Luc Harkonnen", "capitalised pair"),
        ("Thomas's dog on a beach", "Thomas", "listed first name"),
        ("a portrait of thomas", "thomas", "listed first name"),
        ("a portrait of Gutierrez", "Gutierrez", "listed last name"),
        ("A Man And Maria Garcia Standing In A Park", "Maria Garcia", "first and last name"),
    ],
)
def test_names_are_found(text, found, rule):
    spans = DETECTOR.find(text)
    assert [(text[span.start : span.end], span.rule) for span in spans] == [(found, rule)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a woman in a red striped shirt and blue jeans",
        "a man in a brown coat with a rose in a green park in may",
        "A Man Wearing A Red Shirt Standing In A Green Park",
        "Two People On A City Street In New York",
        "an East Asian woman and a Middle Eastern man at Times Square",
        "a Pacific Islander girl on New Year Eve",
        "a man will mark the long hill, a young king with a bell",
        "people in San Francisco, Golden Gate Bridge",
        "a beach in Santa Monica",
        "Black Forest, white snow, a cook at the market",
        "a T-shirt and a TV",
    ],
)
def test_ordinary_captions_have_no_name(text):
    assert DETECTOR.find(text) == []


def test_several_names_come_in_order():
    text = "Anna, a dog, Carlos Perez and Zainab"
    assert [text[s.start : s.end] for s in DETECTOR.find(text)] == [
        "Anna",
        "Carlos Perez",
        "Zainab",
    ]
    assert [s.label for s in DETECTOR.find(text)] == ["first name", "name", "first name"]


def test_comma_separates_a_pair():
    assert DETECTOR.find("in Winter, Fischerstown") == []


def captions(name_probability):
    for index in range(500):
        rng = sample_rng(2, "test", str(index))
        children = (rng.random(int(rng.integers(1, 9))) < 0.2).tolist()
        yield compose(
            rng,
            children,
            rng.integers(1, 11, len(children)).tolist(),
            name_probability=name_probability,
            hat_probability=0.22,
            max_described=3,
        )


def test_grammar_without_names_is_never_flagged():
    assert not any(DETECTOR.find(caption.text) for caption in captions(0.0))


def test_grammar_names_are_found_listed_or_not():
    found = np.array([bool(DETECTOR.find(caption.text)) for caption in captions(1.0)])
    assert found.mean() > 0.995


def test_lists_are_clean():
    listed = name_list("first_names.txt") | name_list("last_names.txt")
    assert len(name_list("first_names.txt")) > 400
    assert len(name_list("last_names.txt")) > 400
    assert all(name.isalpha() and name.islower() and name.isascii() for name in listed)
    assert name_list("ambiguous_names.txt") <= listed
    # Names that the grammar invents must be unknown to the lists, or recall would mean nothing.
    unlisted = {part.lower() for name in name_list("unlisted_names.txt") for part in name.split()}
    assert len(name_list("unlisted_names.txt")) >= 20
    assert not unlisted & listed
