"""The YAML reader: YAML 1.2 scalars, duplicate keys, places."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simpod.config.nodes import Place, from_plain
from simpod.config.strict_yaml import parse_yaml, read_yaml
from simpod.errors import ConfigError


def value_of(text):
    return parse_yaml(f"key: {text}", "x.yaml").plain()["key"]


def problems_of(text):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 10**9),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.5E+3", 1500.0),
        ("-2e3", -2000),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_and_words_of_yaml_1_2(text, value):
    got = value_of(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "y", "2024-05-10", "1:30", "1_000", "nan", "'1'", '"true"']
)
def test_words_stay_words(word):
    assert value_of(word) == word.strip("'\"")


def test_nan_is_read_as_a_number():
    assert math.isnan(value_of(".nan"))


def test_a_whole_number_too_large_to_be_exact_stays_a_float():
    assert value_of("1e300") == 1e300
    assert isinstance(value_of("1e300"), float)
    assert value_of("1e400") == math.inf


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(number):
    assert value_of(repr(number)) == number


def test_on_is_a_usable_key():
    assert parse_yaml("on: 1\nyes: 2", "x.yaml").plain() == {"on": 1, "yes": 2}


def test_duplicate_keys_are_all_told_with_both_lines():
    assert problems_of("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n") == (
        'x.yaml:4:3: duplicate key "c"; it stands at line 3, column 3 already\n      c: 2\n      ^',
        'x.yaml:5:1: duplicate key "a"; it stands at line 1, column 1 already\n    a: 3\n    ^',
    )


def test_syntax_error_has_the_same_shape():
    assert problems_of("a: [1, 2\nb: 3\n") == (
        "x.yaml:2:2: not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'\n"
        "    b: 3\n"
        "     ^",
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: !!python/name:os.system ''", "the tag tag:yaml.org,2002:python/name:os.system"),
        ("a: !mine {b: 1}", "the tag !mine is not allowed"),
        ("1: 2", 'a key must be text: write "1" in quotes'),
        ("? [a, b]\n: 2", "a key must be text"),
        ("a: &x [1, *x]", "an alias inside its own anchor"),
        ("<<: 5", "<<: takes a mapping"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: \x00", "not YAML"),
        ("a: !!int word", "'word' is not of type int"),
    ],
)
def test_refused(text, part):
    (problem,) = problems_of(text)
    assert problem.startswith("x.yaml")
    assert part in problem


def test_anchors_and_merges():
    text = "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: {<<: [*x, {r: 4}]}\nd: *x"
    data = parse_yaml(text, "x.yaml").plain()
    assert data["b"] == {"p": 1, "q": 3}
    assert data["c"] == {"p": 1, "q": 2, "r": 4}
    assert data["d"] == data["a"]


def test_places_of_key_and_value():
    node = parse_yaml("a:\n  b: [10, {c: word}]\n", "x.yaml").find(("a", "b", 1, "c"))
    assert node is not None
    assert node.key == Place("x.yaml", 2, 12, "  b: [10, {c: word}]")
    assert node.place == Place("x.yaml", 2, 15, "  b: [10, {c: word}]")
    assert str(node.place) == "x.yaml:2:15"
    assert node.place.origin == "x.yaml:2"


def test_find_and_nearest():
    root = parse_yaml("a: {b: 1}", "x.yaml")
    assert root.find(("a", "c")) is None
    assert root.find(("a", "b", "c")) is None
    assert root.nearest(("a", "c", "d"))[1] == ("a",)
    assert [path for path, _ in root.walk()] == [(), ("a",), ("a", "b")]


def test_carriage_returns_byte_order_mark_and_empty_files(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(path).plain() == {"a": 1, "b": 2}
    path.write_bytes(b"")
    assert read_yaml(path).plain() is None
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
)


@settings(max_examples=30)
@given(plain_data)
def test_from_plain_and_back(data):
    assert from_plain(data, Place("here")).plain() == data
