"""Config files, what they extend and what the command line changes in them."""

import json
import math
import os
import random
import time
from pathlib import Path

import pytest

from base.config.source import (
    COMMAND_LINE,
    Node,
    merge,
    parse_overrides,
    plain,
    read_config,
    where_is,
)
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
    return plain(read_config(write(text, name=name)))


def lines_of(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return str(caught.value).splitlines()


def tree(text):
    return read_config(write(text, name="tree.yaml"))


def changed(text, *assignments):
    return plain(merge(tree(text), parse_overrides(assignments)))


class TestScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 0.001),
            ("1E5", 100000.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("-2.5e+3", -2500.0),
            ("010", 10),
            ("-7", -7),
            ("+7", 7),
            ("0o10", 8),
            ("0x1F", 31),
            (".inf", math.inf),
            ("-.INF", -math.inf),
            ("+.Inf", math.inf),
            ("true", True),
            ("FALSE", False),
            ("~", None),
            ("Null", None),
            ("", None),
            ("off", "off"),
            ("yes", "yes"),
            ("No", "No"),
            ("y", "y"),
            ("1:30", "1:30"),
            ("2024-01-31", "2024-01-31"),
            ("1_000", "1_000"),
            ("0b11", "0b11"),
            ("1e", "1e"),
            (".", "."),
            ("=", "="),
            ("nan", "nan"),
            ("\u0661", "\u0661"),
            ("'1'", "1"),
            ('"null"', "null"),
            ('"\\ud83d\\ude00"', "\U0001f600"),
        ],
    )
    def test_are_those_of_yaml_1_2(self, text, value):
        for found in (read(f"a: {text}\n"), plain(parse_overrides([f"a={text}"]))):
            assert found == {"a": value}
            assert type(found["a"]) is type(value)

    def test_nan_is_a_number(self):
        assert all(math.isnan(value) for value in read("a: [.nan, .NaN, .NAN]")["a"])

    def test_in_blocks_are_strings(self):
        assert read("a: |\n  1\nb: >-\n  1\n  2\n") == {"a": "1\n", "b": "1 2"}

    def test_as_keys_stay_as_written(self):
        assert read("{1: a, 1e3: b, null: c, on: d}") == {
            "1": "a",
            "1e3": "b",
            "null": "c",
            "on": "d",
        }

    def test_that_no_number_can_hold_are_refused(self):
        text = f"a: 1e999\nb: {'1' * 5000}\nc: 0x{'f' * 5000}\n"
        assert lines_of(read, text) == [
            "c.yaml:1:4: a: 1e999 is too large; infinity is written .inf",
            "c.yaml:2:4: b: expected at most 1,000 digits, found 5,000",
            "c.yaml:3:4: c: expected at most 1,000 digits, found 5,002",
        ]

    def test_with_nul_or_half_a_surrogate_pair_are_refused(self):
        text = '{"a": "\\ud83d",\n"b": "\\u0000",\n"\\udc00": 1}'
        assert lines_of(read, text, name="c.json") == [
            r"c.json:1:7: a: expected text, found the character '\ud83d'",
            r"c.json:2:6: b: expected text, found the character '\x00'",
            r"c.json:3:1: expected text, found the character '\udc00'",
        ]


class TestPlaces:
    def test_are_those_of_keys_and_of_list_items(self):
        node = read_config(
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
            assert where_is(node, path) == f"x/c.yaml:{place}", path

    def test_of_what_is_missing_are_those_of_what_encloses_it(self):
        node = tree("a:\n  b: [1]\n")
        assert where_is(node, ["a", "x", "y"]) == "tree.yaml:1:1"
        assert where_is(node, ["a", "b", 3]) == "tree.yaml:2:3"
        assert where_is(node, ["a", "b", 0, "type"]) == "tree.yaml:2:7"

    def test_in_json_count_tabs_as_one_column(self):
        node = read_config(write('{\n\t"a": 1,\n\t\t"b": [{"c": 2}]\n}', name="c.json"))
        assert where_is(node, ["b"]) == "c.json:3:3"
        assert where_is(node, ["b", 0, "c"]) == "c.json:3:10"

    def test_after_carriage_returns_and_a_byte_order_mark_are_the_same(self):
        node = read_config(write(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n"))
        assert plain(node) == {"a": 1, "b": "é"}
        assert [node.value["a"].where, node.value["b"].where] == ["c.yaml:1:1", "c.yaml:2:1"]
        node = read_config(write(b'\xef\xbb\xbf{"a": 1,\r\n"b": 2}', name="c.json"))
        assert [node.value["a"].where, node.value["b"].where] == ["c.json:1:2", "c.json:2:1"]

    def test_of_an_alias_is_its_own_key(self):
        node = tree("a: &x {b: 1}\nc: *x\n")
        assert plain(node) == {"a": {"b": 1}, "c": {"b": 1}}
        assert where_is(node, ["c"]) == "tree.yaml:2:1"
        assert where_is(node, ["c", "b"]) == "tree.yaml:1:8"
        assert plain(tree("&x a: 1\nb: *x\n")) == {"a": 1, "b": "a"}


class TestMistakesInYaml:
    def test_are_all_reported_at_once(self):
        text = "a: 1\nb: !!str 2\nm: {k: 1, k: 2}\na: 3\nc: *nothing\nd:\n  <<: {x: 1}\ne: !x [1]\n"
        assert lines_of(read, text) == [
            "c.yaml:2:4: b: expected no tag, found !!str; quotes make a string",
            "c.yaml:3:11: m.k: found this key twice, first at c.yaml:3:5",
            "c.yaml:4:1: a: found this key twice, first at c.yaml:1:1",
            "c.yaml:5:4: c: found the alias *nothing, expected its &nothing to end before",
            "c.yaml:7:3: d: YAML 1.2 has no merge key '<<'; write its keys out",
            "c.yaml:8:4: e: expected no tag, found !x; quotes make a string",
        ]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("a:\n\tb: 1", "2:1: found a tab where YAML takes only spaces; indent with spaces"),
            ("a: b: c", "1:5: found ': ' inside a value; quote the value or start a new line"),
            ("a: @b", "1:4: found a character that begins no value; quote the value"),
            ("a: &x [*x]", "1:8: a.0: found the alias *x, expected its &x to end before"),
            ("? [a]\n: 1", "1:3: expected a name, found another kind of key"),
            ("a: 1\n---\nb: 2", "2:1: expected one document, found a second"),
            ('a: "\\U99999999"', "1:7: found a number beyond all range"),
            (
                "a:\n  - 1\n - 2",
                "3:2: this does not belong to the lines above; check indentation, quotes and "
                "commas (while parsing a block mapping, from line 1)",
            ),
            (
                "a: 1\nb: {c: 1",
                "2:9: the text ends too early; check brackets and quotes "
                "(while parsing a flow mapping, from line 2)",
            ),
        ],
    )
    def test_say_where_and_what(self, text, line):
        assert lines_of(read, text) == [f"c.yaml:{line}"]

    def test_found_before_the_syntax_breaks_are_kept(self):
        lines = lines_of(read, "a: !x 1\nb: [1\n")
        assert len(lines) == 2
        assert lines[0].startswith("c.yaml:1:4: a: expected no tag")

    def test_of_a_version_with_thousands_of_digits_give_no_traceback(self):
        assert "beyond all range" in lines_of(read, f"%YAML {'9' * 5000}.1\n---\na: 1")[0]


class TestJson:
    def test_is_read_with_tabs_and_surrogate_pairs(self):
        text = '{\t"a":\t[1, 2.5e3, -0.5, true, null],\n\t"b": "\\ud83d\\ude00\\n\\/", "<<": {}}'
        found = {"a": [1, 2500.0, -0.5, True, None], "b": "\U0001f600\n/", "<<": {}}
        assert read(text, name="c.json") == found

    def test_is_not_read_as_yaml(self):
        text = '{"a"\n:"x\u2028y", "' + "k" * 2000 + '": "off", "b": "~"}'
        assert read(text, name="c.JSON") == {"a": "x\u2028y", "k" * 2000: "off", "b": "~"}

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
            ('{"a": NaN}', "1:7: not valid JSON: NaN is no number there"),
            ('{"a": [1,\n-Infinity]}', "2:1: not valid JSON: -Infinity is no number there"),
            ('{"a": 1, "a": 2}', "1:10: a: found this key twice, first at c.json:1:2"),
            ('{"a": 1}\n x', "2:2: not valid JSON: Extra data"),
            ('{"a": 1\n// no\n}', "2:1: not valid JSON: Expecting ',' delimiter"),
            ("[" * 100_000, "1:1: more than 50 levels"),
            ('{"a": "\x00"}', "1:8: found the character U+0000, expected plain text in UTF-8"),
        ],
    )
    def test_mistakes_say_where_and_what(self, text, line):
        assert lines_of(read, text, name="c.json") == [f"c.json:{line}"]


class TestFilesThatAreNoConfig:
    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"", "c.yaml: expected keys with values, found nothing"),
            (b"# nothing\n", "c.yaml: expected keys with values, found nothing"),
            (b"- a\n", "c.yaml:1:1: expected keys with values, found a list"),
            (b"hello", "c.yaml:1:1: expected keys with values, found 'hello'"),
            (b"a: \xff", "c.yaml:1:4: found the byte 0xFF, expected plain text in UTF-8"),
            (
                "a: 1".encode("utf-16"),
                "c.yaml:1:1: found the byte 0xFF, expected plain text in UTF-8",
            ),
            (
                b"a: 1\nb: \0",
                "c.yaml:2:4: found the character U+0000, expected plain text in UTF-8",
            ),
        ],
    )
    def test_are_refused(self, content, line):
        assert lines_of(read, content) == [line]

    def test_in_json_are_refused(self):
        for text, found in {"": "c.json: ", " \n": "c.json: ", "[1]": "c.json:1:1: "}.items():
            assert lines_of(read, text, name="c.json")[0].startswith(found + "expected keys")

    def test_that_are_missing_are_named_with_the_nearest_that_is_there(self):
        write("a: 1", name="configs/mnist.yaml")
        assert lines_of(read_config, Path("configs/mnits.yaml")) == [
            "cannot read configs/mnits.yaml: No such file or directory (did you mean 'mnist.yaml'?)"
        ]

    def test_that_are_directories_are_named(self):
        Path("configs").mkdir()
        assert lines_of(read_config, Path("configs")) == ["cannot read configs: Is a directory"]


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
        assert lines_of(read, levels) == ["c.yaml:2:34: more than 50 levels"]
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


class TestExtends:
    def test_lays_a_file_over_those_it_names(self):
        write("a: 1\nb: 1\nc: 1\nd: 1\n", name="configs/one.yaml")
        write('{"b": 2, "c": 2}', name="configs/two.json")
        node = read_config(write("c: 3\nextends: [one.yaml, two.json]\n", name="configs/x.yaml"))
        assert plain(node) == {"a": 1, "b": 2, "c": 3, "d": 1}
        assert where_is(node, ["a"]) == "configs/one.yaml:1:1"
        assert where_is(node, ["b"]) == "configs/two.json:1:2"
        assert where_is(node, ["c"]) == "configs/x.yaml:1:1"

    def test_is_relative_to_the_file_that_says_it(self):
        write("a: 1\n", name="root.yaml")
        write("extends: ../root.yaml\nb: 2\n", name="configs/base.yaml")
        path = write("extends: ../base.yaml\n", name="configs/mine/x.yaml")
        assert plain(read_config(path)) == {"a": 1, "b": 2}

    def test_may_reach_one_file_twice_and_may_be_empty(self):
        write("extends: null\na: 1\n", name="base.yaml")
        write("extends: base.yaml\n", name="one.yaml")
        write("extends: base.yaml\n", name="two.yaml")
        assert read("extends: [one.yaml, two.yaml]\nb: 2\n") == {"a": 1, "b": 2}
        assert read("extends: []\nb: 2\n") == {"b": 2}

    def test_of_itself_is_refused(self):
        Path("x").mkdir()
        write("extends: b.yaml\n", name="a.yaml")
        write("x: 1\nextends: x/../a.yaml\n", name="b.yaml")
        assert lines_of(read_config, Path("a.yaml")) == [
            "b.yaml:2:1: extends: cannot read x/../a.yaml: a file cannot extend itself "
            "(a.yaml -> b.yaml -> x/../a.yaml)"
        ]

    def test_reports_the_mistakes_of_all_files_at_once(self):
        write("a: !x 1\n", name="bad.yaml")
        write("- 1\n", name="list.yaml")
        text = "extends: [bad.yaml, gone.yaml, list.yaml, {a: 1}, '', 3]\nb: !y 2\n"
        expected = "extends: expected a file or a list of files, found"
        assert sorted(lines_of(read, text)) == [
            "bad.yaml:1:4: a: expected no tag, found !x; quotes make a string",
            "c.yaml:1:21: extends: cannot read gone.yaml: No such file or directory",
            f"c.yaml:1:43: {expected} a mapping",
            f"c.yaml:1:51: {expected} ''",
            f"c.yaml:1:55: {expected} 3",
            "c.yaml:2:4: b: expected no tag, found !y; quotes make a string",
            "list.yaml:1:1: expected keys with values, found a list",
        ]

    def test_stops_where_files_multiply(self):
        for index in range(40):
            write(f"extends: [e{index + 1}.yaml, e{index + 1}.yaml]", name=f"e{index}.yaml")
        write("a: 1", name="e40.yaml")
        assert lines_of(read_config, Path("e0.yaml"))[-1].endswith("extends: more than 100 files")


class TestMerge:
    @pytest.mark.parametrize(
        ("base", "over", "merged"),
        [
            ("a: {b: {c: 1, d: 1}}", "a: {b: {d: 2}}", {"a": {"b": {"c": 1, "d": 2}}}),
            ("a: [1, 2]", "a: [3]", {"a": [3]}),
            ("a: {b: 1}", "a: null", {"a": None}),
            ("a: null", "a: {b: 1}", {"a": {"b": 1}}),
            ("a: {b: 1}", "a: 2", {"a": 2}),
            ("a: [1, 2]", "a: {0: 3}", {"a": {"0": 3}}),
        ],
    )
    def test_merges_mappings_and_replaces_the_rest(self, base, over, merged):
        assert plain(merge(tree(base), tree(over))) == merged

    @pytest.mark.parametrize(
        ("over", "merged"),
        [
            ("{type: SGD}", {"type": "SGD"}),
            ("{type: SGD, args: {nesterov: true}}", {"type": "SGD", "args": {"nesterov": True}}),
            ("{type: Adam}", {"type": "Adam", "args": {"lr": 1}}),
            ("{type: Adam, args: {eps: 2}}", {"type": "Adam", "args": {"lr": 1, "eps": 2}}),
            ("{args: {eps: 2}}", {"type": "Adam", "args": {"lr": 1, "eps": 2}}),
            ("SGD", "SGD"),
            ("Adam", {"type": "Adam", "args": {"lr": 1}}),
        ],
    )
    def test_keeps_the_args_only_of_a_node_of_the_same_type(self, over, merged):
        base = tree("o: {type: Adam, args: {lr: 1}}")
        assert plain(merge(base, tree(f"o: {over}"))) == {"o": merged}

    @pytest.mark.parametrize(
        ("over", "merged"),
        [
            ("{args: {lr: 1}}", {"type": "Adam", "args": {"lr": 1}}),
            ("{type: Adam, args: {lr: 1}}", {"type": "Adam", "args": {"lr": 1}}),
            ("{type: SGD, args: {lr: 1}}", {"type": "SGD", "args": {"lr": 1}}),
            ("SGD", "SGD"),
        ],
    )
    def test_takes_a_bare_name_for_a_node(self, over, merged):
        assert plain(merge(tree("o: Adam"), tree(f"o: {over}"))) == {"o": merged}

    def test_lets_a_name_choose_the_type_of_a_mapping_that_has_none(self):
        merged = merge(tree("trainer: {epochs: 3}"), tree("trainer: MyTrainer"))
        assert plain(merged) == {"trainer": {"epochs": 3, "type": "MyTrainer"}}

    def test_takes_strings_inside_args_for_strings(self):
        base = tree("m: {type: A, args: {mode: fast, type: x, size: 1}}")
        over = tree("m: {args: {mode: {k: 1}, type: y}}")
        merged = {"type": "A", "args": {"mode": {"k": 1}, "type": "y", "size": 1}}
        assert plain(merge(base, over)) == {"m": merged}

    def test_replaces_nodes_inside_args_by_their_type(self):
        base = tree("m: {type: A, args: {head: {type: B, args: {x: 1}}}}")
        over = tree("m: {args: {head: {type: C, args: {y: 1}}}}")
        merged = {"type": "A", "args": {"head": {"type": "C", "args": {"y": 1}}}}
        assert plain(merge(base, over)) == {"m": merged}

    def test_changes_neither_tree(self):
        base, over = (
            tree("a: {b: 1}\nc: x\nd: [1]"),
            parse_overrides(["a.b=2", "c.args.x=1", "d.0=2"]),
        )
        before = repr(base), repr(over)
        merge(base, over)
        assert (repr(base), repr(over)) == before

    def test_keeps_the_place_of_a_mapping_that_an_override_only_changes(self):
        node = merge(
            tree("o:\n  type: Adam\nl: [a]"), parse_overrides(["o.args.lr=1", "l.0.args.k=2"])
        )
        assert where_is(node, ["o"]) == "tree.yaml:1:1"
        assert where_is(node, ["o", "type"]) == "tree.yaml:2:3"
        assert where_is(node, ["l", 0, "type"]) == "tree.yaml:3:5"
        assert where_is(node, ["o", "args", "lr"]) == COMMAND_LINE
        assert where_is(node, ["l", 0, "args", "k"]) == COMMAND_LINE


class TestOverrides:
    def test_are_nodes_at_the_command_line(self):
        node = Node(0.5, COMMAND_LINE)
        assert parse_overrides(["a.b=.5"]) == Node(
            {"a": Node({"b": node}, COMMAND_LINE)}, COMMAND_LINE
        )

    @pytest.mark.parametrize(
        ("assignment", "value"),
        [
            ("a={x: 1, y: [b, 2]}", {"x": 1, "y": ["b", 2]}),
            ("a=min val_loss", "min val_loss"),
            ("a=x=y", "x=y"),
            ("a=", None),
            ("a=null", None),
        ],
    )
    def test_are_read_as_yaml(self, assignment, value):
        assert plain(parse_overrides([assignment])) == {"a": value}

    @pytest.mark.parametrize("other", ["o.type=SGD", "o=SGD", "o={type: SGD}"])
    def test_give_the_same_in_any_order(self, other):
        for order in (["o.args.lr=0.1", other], [other, "o.args.lr=0.1"]):
            found = changed("o: {type: Adam, args: {eps: 1}}", *order)
            assert found == {"o": {"type": "SGD", "args": {"lr": 0.1}}}

    def test_of_one_key_count_as_the_last_of_them(self):
        assert changed("a: {b: 0}", "a.b=1", "a.b=2") == {"a": {"b": 2}}
        assert changed("a: 0", "a={b: 1, c: 1}", "a.b=2") == {"a": {"b": 2, "c": 1}}
        assert changed("a: 0", "a.b=2", "a=[]") == {"a": []}
        assert changed("a: 0", "a=1", "a.b=2", "a=3") == {"a": 3}
        found = plain(parse_overrides(["o.type=A", "o.args.lr=1", "o.type=B"]))
        assert found == {"o": {"type": "B", "args": {"lr": 1}}}

    def test_change_items_of_a_list(self):
        text = "metrics: [accuracy, {type: top_k, args: {k: 3}}]"
        found = changed(text, "metrics.0.args.x=1", "metrics.1.args.k=5")["metrics"]
        assert found == [
            {"type": "accuracy", "args": {"x": 1}},
            {"type": "top_k", "args": {"k": 5}},
        ]
        assert changed("a: [[1, 2], 3]", "a.0.1=9") == {"a": [[1, 9], 3]}
        assert changed("a: 1", "a=[b, c]", "a.0=d") == {"a": ["d", "c"]}
        assert changed("a: [1]", "a=[2, 3]") == {"a": [2, 3]}

    def test_past_the_end_of_a_list_are_refused_with_its_length(self):
        assert lines_of(changed, "a: [x, y]\nb: {c: []}", "a.2=1", "a.00=1", "b.c.0=1") == [
            "command line: a.00: no item 00 in a list of 2, counted from 0; none can be added",
            "command line: a.2: no item 2 in a list of 2, counted from 0; none can be added",
            "command line: b.c.0: no item 0 in a list of 0, counted from 0; none can be added",
        ]

    def test_that_are_wrong_are_all_reported(self):
        assignments = [
            "lr",
            "a.yaml",
            "=1",
            "a..b=1",
            "a. b=1",
            "a.b=[1",
            "c={x: !t 1, x: 2}",
            "d=\udcff",
        ]
        assert lines_of(parse_overrides, assignments) == [
            "command line: expected key.path=value, found 'lr'",
            "command line: expected key.path=value, found 'a.yaml'; a config goes with -c",
            "command line: expected key.path=value, found '=1'",
            "command line: expected key.path=value, found 'a..b=1'",
            "command line: expected key.path=value, found 'a. b=1'",
            "command line: a.b: the text ends too early; check brackets and quotes "
            "(while parsing a flow sequence, from line 1)",
            "command line: c.x: expected no tag, found !t; quotes make a string",
            "command line: c.x: found this key twice, first at command line",
            "command line: d: found the byte 0xFF, expected plain text in UTF-8",
        ]

    def test_count_the_levels_of_their_path(self):
        parse_overrides([".".join("a" * 50) + "=1"])
        assert lines_of(parse_overrides, [".".join("a" * 5000) + "=1"])[0].endswith("50 levels")
        assert lines_of(parse_overrides, [".".join("a" * 50) + "=[1]"])[0].endswith("50 levels")


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
def test_no_bytes_whatever_give_anything_but_a_config_or_its_mistakes(name):
    rng = random.Random(0)
    outcomes = set()
    for _ in range(400):
        path = write(mutate(rng.choice(SEEDS), rng=rng), name=name)
        value = os.fsdecode(path.read_bytes())
        for call in (lambda: read_config(path), lambda: parse_overrides([f"a.b={value}"])):  # noqa: B023
            try:
                plain(call())
                outcomes.add("read")
            except ConfigError as error:
                outcomes.add("refused" if str(error) else "refused without a word")
    assert outcomes == {"read", "refused"}
