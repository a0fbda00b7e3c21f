"""Text of configs: values, their positions, and what is wrong with it."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from base.config.merge import parse_overrides, read_config
from base.errors import ConfigError


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, *, name="c.yaml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(text, *, name="c.yaml"):
    return read_config(write(text, name=name)).values


def lines_of(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return str(caught.value).splitlines()


def source_of(text):
    return read_config(write(text, name="tree.yaml"))


class TestPlaces:
    def test_are_those_of_keys_and_of_list_items(self):
        source = read_config(
            write("a: 1\nb:\n  c: {d: 2}\n  e:\n    - 3\n    - f: 4\n", name="x/c.yaml")
        )
        places = {
            (): "1:1",
            ("a",): "1:1",
            ("b", "c"): "3:3",
            ("b", "c", "d"): "3:7",
            ("b", "e", 0): "5:7",
            ("b", "e", "1", "f"): "6:7",
        }
        for path, place in places.items():
            assert source.where(path) == f"x/c.yaml:{place}", path

    def test_of_what_is_missing_are_those_of_what_encloses_it(self):
        source = source_of("a:\n  b: [1]\n")
        assert source.where(("a", "x", "y")) == "tree.yaml:1:1"
        assert source.where(("a", "b", 3)) == "tree.yaml:2:3"
        assert source.where(("a", "b", 0, "type")) == "tree.yaml:2:7"

    def test_in_json_count_tabs_as_one_column(self):
        source = read_config(write('{\n\t"a": 1,\n\t\t"b": [{"c": 2}]\n}', name="c.json"))
        assert source.where(("b",)) == "c.json:3:3"
        assert source.where(("b", 0, "c")) == "c.json:3:10"

    def test_after_carriage_returns_and_a_byte_order_mark_are_the_same(self):
        source = read_config(write(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n"))
        assert source.values == {"a": 1, "b": "é"}
        assert [source.where(("a",)), source.where(("b",))] == ["c.yaml:1:1", "c.yaml:2:1"]
        source = read_config(write(b'\xef\xbb\xbf{"a": 1,\r\n"b": 2}', name="c.json"))
        assert [source.where(("a",)), source.where(("b",))] == ["c.json:1:2", "c.json:2:1"]

    def test_of_an_alias_is_its_own_key(self):
        source = source_of("a: &x {b: 1}\nc: *x\n")
        assert source.values == {"a": {"b": 1}, "c": {"b": 1}}
        assert source.where(("c",)) == "tree.yaml:2:1"
        assert source.where(("c", "b")) == "tree.yaml:1:8"
        assert source_of("&x a: 1\nb: *x\n").values == {"a": 1, "b": "a"}


SCANNING = "while scanning for the next token, found character "


class TestIssuesInYaml:
    def test_are_all_reported_at_once(self):
        assert lines_of(read, "a: 1\nm: {k: 1, k: 2}\na: 3\nb: 1e999\n") == [
            "c.yaml:2:11: m.k: found this key twice, first at c.yaml:2:5",
            "c.yaml:3:1: a: found this key twice, first at c.yaml:1:1",
            "c.yaml:4:4: b: 1e999 is too large; infinity is written .inf",
        ]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("a:\n\tb: 1", f"2:1: {SCANNING}'\\t' that cannot start any token"),
            ("a: b: c", "1:5: mapping values are not allowed here"),
            ("a: @b", f"1:4: {SCANNING}'@' that cannot start any token"),
            ("a: &x [*x]", "1:4: more than 50 levels"),
            ("c: *nothing", "1:4: found undefined alias 'nothing'"),
            (
                "a: &x 1\nb: &x 2",
                "2:4: found duplicate anchor 'x'; first occurrence, second occurrence",
            ),
            (
                "a: 1\nb: !!str 2",
                "2:4: expected no tag, found tag:yaml.org,2002:str; quotes make a string",
            ),
            ("e: !x [1]", "1:4: expected no tag, found !x; quotes make a string"),
            ("d:\n  <<: {x: 1}", "2:3: YAML 1.2 has no merge key '<<'; write its keys out"),
            ("? [a]\n: 1", "1:3: expected a name, found another kind of key"),
            (
                "a: 1\n---\nb: 2",
                "2:1: expected a single document in the stream, but found another document",
            ),
            ('a: "\\U99999999"', "1:7: found a number beyond all range"),
            (
                "a:\n  - 1\n - 2",
                "3:2: while parsing a block mapping, expected <block end>, "
                "but found '<block sequence start>'",
            ),
            (
                "a: 1\nb: {c: 1",
                "2:9: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'",
            ),
        ],
    )
    def test_say_where_and_what(self, text, line):
        assert lines_of(read, text) == [f"c.yaml:{line}"]

    def test_of_a_version_with_thousands_of_digits_give_no_traceback(self):
        assert "beyond all range" in lines_of(read, f"%YAML {'9' * 5000}.1\n---\na: 1")[0]


class TestJson:
    def test_is_read_with_tabs_and_surrogate_pairs(self):
        text = '{\t"a":\t[1, 2.5e3, -0.5, true, null],\n\t"b": "\\ud83d\\ude00\\n\\/", "<<": {}}'
        found = {"a": [1, 2500.0, -0.5, True, None], "b": "\U0001f600\n/", "<<": {}}
        assert read(text, name="c.json") == found

    def test_is_not_read_as_yaml(self):
        text = '{"a":"x\u2028y","b":"off",\t"c":"~","d":[1,-2]}'
        found = {"a": "x\u2028y", "b": "off", "c": "~", "d": [1, -2]}
        assert read(text, name="c.JSON") == found

    @pytest.mark.parametrize("indent", [None, "\t", 4])
    def test_of_any_shape_gives_what_the_standard_library_gives(self, indent):
        rng = random.Random(0)

        def value(depth):
            kind = rng.randrange(8 if depth < 4 else 6)
            if kind >= 6:
                keys = [text() for _ in range(rng.randrange(4))]
                return (
                    {key: value(depth + 1) for key in keys} if kind == 6 else [*map(value, [5] * 3)]
                )
            return [rng.randrange(-99, 99), rng.uniform(-1, 1), None, True, text(), 1e-30][kind]

        def text():
            return "".join(
                rng.choices("ab \\\"'#:-{}[],&*!\n\t\u00e9\u2028\x85\U0001f600", k=rng.randrange(6))
            )

        for _ in range(20):
            config = {"a": value(0), "b": value(0)}
            dumped = json.dumps(config, indent=indent, ensure_ascii=rng.random() < 0.5)
            assert read(dumped, name="c.json") == config

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ('{"a": 1, "a": 2}', "1:10: a: found this key twice, first at c.json:1:2"),
            ('{"a": 1}\n x', "2:2: expected '<document start>', but found '<scalar>'"),
            ('{"a": 1\n// no\n}', "2:1: not valid JSON: Expecting ',' delimiter"),
            ('{"a": "\x00"}', "1:8: expected plain text in UTF-8, found '\\x00'"),
        ],
    )
    def test_issues_say_where_and_what(self, text, line):
        assert lines_of(read, text, name="c.json") == [f"c.json:{line}"]


class TestLimits:
    def test_of_size(self):
        assert read("a: 1\n" + "#" * 999_995) == {"a": 1}
        line = "cannot read c.yaml: larger than 1,000,000 bytes"
        assert lines_of(read, "a: 1\n" + "#" * 999_996) == [line]

    @pytest.mark.parametrize("name", ["c.yaml", "c.json"])
    def test_of_levels(self, name):
        read('{"a": ' * 49 + '{"a": 1}' + "}" * 49, name=name)
        line = lines_of(read, '{"a": ' * 50 + '{"a": 1}' + "}" * 50, name=name)[0]
        assert line.endswith(": more than 50 levels")

    @pytest.mark.parametrize("name", ["c.yaml", "c.json"])
    def test_of_nodes(self, name):
        assert len(read(f'{{"a": [{",".join("1" * 9998)}]}}', name=name)["a"]) == 9998
        line = lines_of(read, f'{{"a": [{",".join("1" * 9999)}]}}', name=name)[0]
        assert "more than 10,000 values" in line

    def test_count_what_an_alias_stands_for(self):
        levels = "a: &a " + "[" * 30 + "]" * 30 + "\nb: " + "[" * 30 + "*a" + "]" * 30
        assert lines_of(read, levels)[0].endswith(": more than 50 levels")
        anchor = f"a: &a [{','.join('1' * 3000)}]\n"
        assert len(read(anchor + "b: [*a, *a]\n")["b"]) == 2
        assert "more than 10,000 values" in lines_of(read, anchor + "b: [*a, *a, *a]\n")[0]

    def test_stop_a_bomb_of_aliases_at_once(self):
        bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
        for last, name in zip("abcdefgh", "bcdefghi", strict=True):
            bomb += f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n"
        start = time.process_time()
        assert "more than 10,000 values" in lines_of(read, bomb)[0]
        assert time.process_time() - start < 2

    @pytest.mark.parametrize(
        "text", ["? " * 100_000, "- " * 100_000, "[" * 100_000, "{a: " * 100_000]
    )
    def test_stop_endless_nesting(self, text):
        assert len(lines_of(read, text)) == 1


FRAGMENTS = (
    b"&a ~*a~!!~!<~%YAML 1.~%TAG ! x\n~---\n~...~? ~: ~- ~[~]~{~}~,~#~|~>~@~'~\"~<<~1e999~NaN~"
    b"\\U99999999~\\ud83d~\\x~\\0~\t~\r~\n~\0~\xff~\xe2\x80\xa8~\xc2\x85~\xef\xbb\xbf"
).split(b"~")
SEEDS = [
    b"name: x\noptimizer: &o {type: Adam, args: {lr: 1e-3, betas: [0.9, 0.99]}}\n"
    b"m: [*o, 'a', \"b\\u0041\\ud83d\\ude00\"]\n? k\n: |\n  text\n  more\nz: >-\n  fold\n",
    b'{"name": "x",\n\t"a": [1, 2.5, true, null, "\\ud83d\\ude00 \\n"], "b": {"c": {}}}',
    b"%YAML 1.2\n---\na: !!str b\nc: {<<: *x}\nd: [&x [0x1F, 0o7, .inf]]\n...\n",
]


def mutate(data, *, rng):
    for _ in range(rng.randint(1, 6)):
        start, stop = sorted(rng.choices(range(len(data) + 1), k=2))
        middle = rng.choice(
            [b"", bytes([rng.randrange(256)]), rng.choice(FRAGMENTS), data[start:stop]]
        )
        data = data[:start] + middle + data[rng.choice([start, start + 1, start + 1, stop]) :]
    return data


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_no_bytes_whatever_give_anything_but_a_config_or_its_issues(name):
    rng = random.Random(0)
    outcomes = set()
    for _ in range(400):
        path = write(mutate(rng.choice(SEEDS), rng=rng), name=name)
        value = os.fsdecode(path.read_bytes())
        for call in (lambda: read_config(path), lambda: parse_overrides([f"a.b={value}"])):  # noqa: B023
            try:
                call()
                outcomes.add("read")
            except ConfigError as error:
                outcomes.add("refused" if str(error) else "refused without a word")
    assert outcomes == {"read", "refused"}
