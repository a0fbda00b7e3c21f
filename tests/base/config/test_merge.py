"""Config files, what they extend and what the command line changes in them."""

from pathlib import Path

import pytest

from base.config.merge import merge, parse_overrides, read_config
from base.config.source import COMMAND_LINE
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


def changed(text, *assignments):
    return merge(source_of(text), parse_overrides(assignments)).values


class TestFilesThatAreNoConfig:
    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"", "c.yaml: expected keys with values, found null"),
            (b"# nothing\n", "c.yaml: expected keys with values, found null"),
            (b"- a\n", "c.yaml:1:1: expected keys with values, found ['a']"),
            (b"hello", "c.yaml:1:1: expected keys with values, found 'hello'"),
            (b"a: \xff", r"c.yaml:1:4: expected plain text in UTF-8, found '\udcff'"),
            (
                "a: 1".encode("utf-16"),
                r"c.yaml:1:1: expected plain text in UTF-8, found '\udcff'",
            ),
            (b"a: 1\nb: \0", r"c.yaml:2:4: expected plain text in UTF-8, found '\x00'"),
        ],
    )
    def test_are_refused(self, content, line):
        assert lines_of(read, content) == [line]

    def test_in_json_are_refused(self):
        line = "c.json:1:1: expected keys with values, found [1]"
        assert lines_of(read, "[1]", name="c.json") == [line]
        line = "c.json:1:1: not valid JSON: Expecting value"
        assert lines_of(read, "", name="c.json") == [line]

    def test_that_are_missing_are_named(self):
        line = "cannot read configs/mnits.yaml: No such file or directory"
        assert lines_of(read_config, Path("configs/mnits.yaml")) == [line]

    def test_that_are_directories_are_named(self):
        Path("configs").mkdir()
        assert lines_of(read_config, Path("configs")) == ["cannot read configs: Is a directory"]


class TestExtends:
    def test_lays_a_file_over_those_it_names(self):
        write("a: 1\nb: 1\nc: 1\nd: 1\n", name="configs/one.yaml")
        write('{"b": 2, "c": 2}', name="configs/two.json")
        source = read_config(write("c: 3\nextends: [one.yaml, two.json]\n", name="configs/x.yaml"))
        assert source.values == {"a": 1, "b": 2, "c": 3, "d": 1}
        assert source.where(("a",)) == "configs/one.yaml:1:1"
        assert source.where(("b",)) == "configs/two.json:1:2"
        assert source.where(("c",)) == "configs/x.yaml:1:1"

    def test_is_relative_to_the_file_that_says_it(self):
        write("a: 1\n", name="root.yaml")
        write("extends: ../root.yaml\nb: 2\n", name="configs/base.yaml")
        path = write("extends: ../base.yaml\n", name="configs/mine/x.yaml")
        assert read_config(path).values == {"a": 1, "b": 2}

    def test_may_reach_one_file_twice_and_may_be_empty(self):
        write("extends: null\na: 1\n", name="base.yaml")
        write("extends: base.yaml\n", name="one.yaml")
        write("extends: base.yaml\n", name="two.yaml")
        assert read("extends: [one.yaml, two.yaml]\nb: 2\n") == {"a": 1, "b": 2}
        assert read("extends: []\nb: 2\n") == {"b": 2}

    def test_of_itself_is_refused(self):
        write("extends: b.yaml\n", name="a.yaml")
        write("x: 1\nextends: a.yaml\n", name="b.yaml")
        assert lines_of(read_config, Path("a.yaml")) == [
            "a.yaml:1:1: extends: cannot read b.yaml: more than 10 files extend one another"
        ]

    def test_reports_the_issues_of_all_files_at_once(self):
        write("a: !x 1\n", name="bad.yaml")
        write("- 1\n", name="list.yaml")
        text = "extends: [bad.yaml, gone.yaml, list.yaml, {a: 1}]\n"
        missing = "No such file or directory"
        assert sorted(lines_of(read, text)) == [
            "bad.yaml:1:4: expected no tag, found !x; quotes make a string",
            f"c.yaml:1:21: extends: cannot read gone.yaml: {missing}",
            f"c.yaml:1:43: extends: cannot read {{'a': 1}}: {missing}",
            "list.yaml:1:1: expected keys with values, found [1]",
        ]

    def test_stops_where_files_multiply(self):
        for index in range(40):
            write(f"extends: [e{index + 1}.yaml, e{index + 1}.yaml]", name=f"e{index}.yaml")
        write("a: 1", name="e40.yaml")
        assert lines_of(read_config, Path("e0.yaml"))[-1].endswith(
            ": more than 10 files extend one another"
        )


class TestMerge:
    @pytest.mark.parametrize(
        ("base", "over", "merged"),
        [
            ("a: {b: {c: 1, d: 1}}", "a: {b: {d: 2}}", {"a": {"b": {"c": 1, "d": 2}}}),
            ("a: [1, 2]", "a: [3]", {"a": [3]}),
            ("a: {b: 1}", "a: null", {"a": None}),
            ("a: null", "a: {b: 1}", {"a": {"b": 1}}),
            ("a: {b: 1}", "a: 2", {"a": 2}),
            ("a: [1, 2]", "a: {0: 3}", {"a": [3, 2]}),
            ("a: [1, 2]", "a: {b: 3}", {"a": {"b": 3}}),
        ],
    )
    def test_merges_mappings_and_replaces_the_rest(self, base, over, merged):
        assert merge(source_of(base), source_of(over)).values == merged

    @pytest.mark.parametrize(
        ("over", "merged"),
        [
            ("{type: SGD}", {"type": "SGD"}),
            ("{type: SGD, args: {nesterov: true}}", {"type": "SGD", "args": {"nesterov": True}}),
            ("{type: Adam}", {"type": "Adam", "args": {"lr": 1}}),
            ("{type: Adam, args: {eps: 2}}", {"type": "Adam", "args": {"lr": 1, "eps": 2}}),
            ("{args: {eps: 2}}", {"type": "Adam", "args": {"lr": 1, "eps": 2}}),
            ("SGD", {"type": "SGD"}),
            ("Adam", {"type": "Adam", "args": {"lr": 1}}),
        ],
    )
    def test_keeps_the_args_only_of_a_node_of_the_same_type(self, over, merged):
        base = source_of("o: {type: Adam, args: {lr: 1}}")
        assert merge(base, source_of(f"o: {over}")).values == {"o": merged}

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
        assert merge(source_of("o: Adam"), source_of(f"o: {over}")).values == {"o": merged}

    def test_lets_a_name_choose_the_type_of_a_mapping_that_has_none(self):
        merged = merge(source_of("trainer: {epochs: 3}"), source_of("trainer: MyTrainer"))
        assert merged.values == {"trainer": {"epochs": 3, "type": "MyTrainer"}}

    def test_takes_strings_inside_args_for_strings(self):
        base = source_of("m: {type: A, args: {mode: fast, type: x, size: 1}}")
        over = source_of("m: {args: {mode: {k: 1}, type: y}}")
        merged = {"type": "A", "args": {"mode": {"k": 1}, "type": "y", "size": 1}}
        assert merge(base, over).values == {"m": merged}

    def test_replaces_nodes_inside_args_by_their_type(self):
        base = source_of("m: {type: A, args: {head: {type: B, args: {x: 1}}}}")
        over = source_of("m: {args: {head: {type: C, args: {y: 1}}}}")
        merged = {"type": "A", "args": {"head": {"type": "C", "args": {"y": 1}}}}
        assert merge(base, over).values == {"m": merged}

    def test_changes_neither_tree(self):
        base, over = (
            source_of("a: {b: 1}\nc: x\nd: [1]"),
            parse_overrides(["a.b=2", "c.args.x=1", "d.0=2"]),
        )
        before = repr(base), repr(over)
        merge(base, over)
        assert (repr(base), repr(over)) == before

    def test_keeps_the_place_of_a_mapping_that_an_override_only_changes(self):
        source = merge(
            source_of("o:\n  type: Adam\nl: [a]"), parse_overrides(["o.args.lr=1", "l.0.args.k=2"])
        )
        assert source.where(("o",)) == "tree.yaml:1:1"
        assert source.where(("o", "type")) == "tree.yaml:2:3"
        assert source.where(("l", 0, "type")) == "tree.yaml:3:5"
        assert source.where(("o", "args", "lr")) == COMMAND_LINE
        assert source.where(("l", 0, "args", "k")) == COMMAND_LINE


class TestOverrides:
    def test_are_values_at_the_command_line(self):
        source = parse_overrides(["a.b=.5"])
        assert source.values == {"a": {"b": 0.5}}
        assert source.positions == dict.fromkeys([(), ("a",), ("a", "b")], COMMAND_LINE)

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
        assert parse_overrides([assignment]).values == {"a": value}

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
        found = parse_overrides(["o.type=A", "o.args.lr=1", "o.type=B"]).values
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
        text = "a: [x, y]\nb: {c: []}"
        for path, item, count in (("a.2", 2, 2), ("a.00", "00", 2), ("b.c.0", 0, 0)):
            line = f"command line: {path}: no item {item} in a list of {count}, counted from 0"
            assert lines_of(changed, text, f"{path}=1") == [line]

    def test_that_are_wrong_are_all_reported(self):
        assignments = [
            "lr",
            "a.yaml",
            "=1",
            "a..b=1",
            "a. b=1",
            "a.b=[1",
            "c={x: 1, x: 2}",
            "d=\udcff",
        ]
        assert lines_of(parse_overrides, assignments) == [
            "command line: expected key.path=value, found 'lr'",
            "command line: expected key.path=value, found 'a.yaml'; a config goes with -c",
            "command line: expected key.path=value, found '=1'",
            "command line: expected key.path=value, found 'a..b=1'",
            "command line: expected key.path=value, found 'a. b=1'",
            "command line: a.b: while parsing a flow sequence, expected ',' or ']', but got "
            "'<stream end>'",
            "command line: c.x: found this key twice, first at command line",
            r"command line: d: expected plain text in UTF-8, found '\udcff'",
        ]

    def test_count_the_levels_of_their_path(self):
        parse_overrides([".".join("a" * 50) + "=1"])
        assert lines_of(parse_overrides, [".".join("a" * 5000) + "=1"])[0].endswith("50 levels")
        assert lines_of(parse_overrides, [".".join("a" * 50) + "=[1]"])[0].endswith("50 levels")
