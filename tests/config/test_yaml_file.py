"""YAML to plain data with lines; nothing here knows what a config is."""

import math

import pytest

from firstspike.config.yaml_file import Document, YamlError, decode_yaml, parse_yaml, shown_place


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-0x1F", -31),
        ("017", 15),
        ("0b11", 3),
        ("1_000", 1000),
        ("1e-3", 0.001),
        ("2.e5", 2e5),
        ("-.5", -0.5),
        ("-.INF", -math.inf),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("|\n 12", "12"),
        # none of these is a number, a date or anything else
        ("0x_", "0x_"),
        ("09", "09"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("2001-99-99", "2001-99-99"),
        ("=", "="),
        (".", "."),
    ],
)
def test_values(text, value):
    found = parse_yaml(f"key: {text}").data["key"]
    assert (type(found), found) == (type(value), value)


def test_nan_and_keys_as_they_are_written():
    assert math.isnan(parse_yaml(".nan").data)
    assert parse_yaml("{1: a, on: b, ~: c, 2001-01-01: d}").data == {"1": "a", "on": "b", "~": "c", "2001-01-01": "d"}
    assert parse_yaml("").data is None


def test_lines():
    text = "a:\n  b: [1,\n    {c: 2}]\n# comment\n'd': |\n  text\ne:\n- f: 1\n-\n  g: 2\n"
    document = parse_yaml(text)
    assert document.data == {"a": {"b": [1, {"c": 2}]}, "d": "text\n", "e": [{"f": 1}, {"g": 2}]}
    found = [f"{shown_place(place)} {line}" for place, line in document.lines.items()]
    assert ", ".join(found) == (
        "a 1, a.b 2, a.b[0] 2, a.b[1] 3, a.b[1].c 3, d 5, e 7, e[0] 8, e[0].f 8, e[1] 10, e[1].g 10"
    )
    assert document.line(("a", "b", 1, "missing", "too")) == 3
    assert document.line(("missing",)) is None
    assert document.line(()) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: !!bool x", "line 2, column 4: tags are not allowed, got 'tag:yaml.org,2002:bool'"),
        ('a: !!int ""', "tags are not allowed"),
        ('a: !!float ""', "tags are not allowed"),
        ("a: !!timestamp x", "tags are not allowed"),
        ("a: !!map [a]", "line 1, column 4: tags are not allowed"),
        ("a: !!str 1", "tags are not allowed"),
        ("a: ! x", "tags are not allowed, got '!'"),
        ("!!set {a}", "line 1, column 1: tags are not allowed"),
        ("a: &x [1]\nb: *x", "line 2, column 4: aliases"),
        ("a:\n  <<: {b: 1}", "line 2, column 3: merge keys"),
        ("a: 1\nb: 2\n'a': 3", "line 3, column 1: duplicate key 'a'"),
        ("1: 1\n'1': 2", "line 2, column 1: duplicate key '1'"),
        ("? [a]\n: 1", "line 1, column 3: expected text as a key"),
        ("[" * 3000, "line 1, column 51: is nested too deeply"),
        ("a: " + "9" * 4301, "line 1, column 4: expected a number of at most 100 characters, got 4301"),
        ("a: 1." + "0" * 4301, "expected a number of at most 100 characters"),
        ("a: 1e999", "line 1, column 4: '1e999' is beyond the largest number; write .inf"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected one document"),
        ("a: 1\nb: [1,\n", "line 3, column 1"),
        ("a: 1\nb:\tc\td: e", "line 2, column"),
        ("a: 1\nb: \0", r"line 2, column 4: the character '\\x00' is not allowed"),
        ("a: \ud800", "line 1, column 4: the character"),
    ],
)
def test_more_than_plain_data_is_refused_with_its_line(text, message):
    with pytest.raises(YamlError, match=message.replace("[", r"\[")):
        parse_yaml(text)


@pytest.mark.slow
def test_a_duplicate_among_very_many_keys():
    """Looking each key up among all others would take longer than anyone waits."""
    many = "\n".join(f"key_{number}: {number}" for number in range(20_000))
    assert len(parse_yaml(many).data) == 20_000
    with pytest.raises(YamlError, match="line 20001, column 1: duplicate key 'key_7'"):
        parse_yaml(f"{many}\nkey_7: 0")


def test_bytes():
    assert decode_yaml("\ufeffa: é\r\nb: 1\r".encode()) == "a: é\nb: 1\n"
    with pytest.raises(YamlError, match="line 3, column 1: expected text in UTF-8, got the byte 0xff"):
        decode_yaml(b"a: 1\nb: 2\nc: \xff")


def test_settings():
    document = parse_yaml("a: {b: 1}\nc:\n  - 1\n  - d: 2\n")
    changed = document.with_setting("c[1].d=[3, x]").with_setting("a.e.f=1e3")
    assert changed.data == {"a": {"b": 1, "e": {"f": 1000.0}}, "c": [1, {"d": [3, "x"]}]}
    assert document.data == {"a": {"b": 1}, "c": [1, {"d": 2}]}
    assert changed.line(("c", 1, "d")) is None  # it is not what the file says
    assert changed.line(("c", 1, "d", 0)) is None
    assert changed.line(("c", 1)) == 4
    assert changed.line(("a", "b")) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a", "expected a.b=value"),
        ("²=1", "expected a.b=value"),
        (f"a[{'9' * 5000}]=1", "expected a.b=value"),
        ("a." * 3000 + "a=1", "nested too deeply"),
        ("a=" + "[" * 3000, "nested too deeply"),
        ("a=" + "9" * 5000, "at most 100 characters"),
        ("a=!!bool x", "tags are not allowed"),
        ("c[2]=1", r"there is no \[2\]; the list has 2 entries"),
        ("a[0]=1", r"there is no \[0\]; \{'b': 1\} is not a list"),
        ("a.b.x=1", "x cannot be set inside 1"),
    ],
)
def test_settings_that_do_not_fit(setting, message):
    with pytest.raises(YamlError, match=message):
        Document({"a": {"b": 1}, "c": [1, 2]}).with_setting(setting)
