"""Nothing hostile in a config, a checkpoint or a name does harm."""

import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import test as test_command
import train as train_command
from base.checkpoint.checkpoints import Checkpoints, read_checkpoint
from base.config.check import load_config
from base.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.faults

NUM_MUTATED = 500
TYPES = (
    "os.system", "logging.os.system", "torch.hub.load", "builtins.eval", "__import__", "eval",
    "exec", "open", "input", "subprocess.Popen", "torch.load", "load", "../model", "model.model",
    "torch.nn.Linear", "nn.Linear", "Module", "__class__", "_BatchNorm", "Path", "shutil.rmtree",
    "pickle.loads", "getattr", "", " ", "\u202eraeniL", "\uff2cinear", "Linear\n",
    "turtle.Turtle", "type", "lambda",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_project(project_root, monkeypatch):
    monkeypatch.chdir(project_root)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("container", ["torch.save", "pickle", "zip"])
def test_a_payload_in_a_checkpoint_is_refused_and_not_run(tmp_path, container):
    """A pickle payload, as torch.save writes it, bare, or smuggled into a zip: refused, not run."""
    target, path = tmp_path / "harm", tmp_path / "evil.pth"
    state = {"model": Payload(target), "config": "{}"}
    if container == "torch.save":
        torch.save(state, path)
    elif container == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        with zipfile.ZipFile(path, "w") as records:
            records.writestr("archive/data.pkl", pickle.dumps(state))
            records.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    for command in (train_command, test_command):
        result = CliRunner().invoke(command.app, ["-r", str(path)])
        assert result.exit_code == 3
        assert len(result.output.splitlines()) == 1
    assert not target.exists()


def test_an_unlisted_class_in_a_checkpoint_is_refused(tmp_path):
    """A class of the project in a checkpoint: refused, though it would do no harm."""
    torch.save({"model": Checkpoints(tmp_path)}, tmp_path / "class.pth")
    with pytest.raises(CheckpointError, match="more than tensors and plain data"):
        read_checkpoint(tmp_path / "class.pth")


def test_a_checkpoint_never_chooses_what_is_imported(tmp_path):
    """A stored config that names os.system as its model: exit 2, nothing run."""
    config = yaml.safe_load(Path("configs/digits.yaml").read_text())
    config["model"] = {"type": "os.system", "args": [f"touch {tmp_path}/harm"]}
    state = {"model": {}, "config": json.dumps(config), "epoch": 1, "step": 1, "batch": 0}
    torch.save(state, tmp_path / "evil.pth")
    result = CliRunner().invoke(test_command.app, ["-r", str(tmp_path / "evil.pth")])
    assert result.exit_code == 2
    assert "unknown name 'os.system'" in result.output
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("section", ["model", "loss", "optimizer", "dataset", "callbacks"])
def test_a_hostile_type_is_an_unknown_name(tmp_path, section):
    """Thirty hostile type names in five sections: each a mistake in one line, nothing imported."""
    config = yaml.safe_load(Path("configs/digits.yaml").read_text())
    path = tmp_path / "hostile.json"
    for name in TYPES:
        node = {"type": name, "args": {"command": f"touch {tmp_path}/harm"}}
        config[section] = [node] if section == "callbacks" else node
        path.write_text(json.dumps(config))
        with pytest.raises(ConfigError):
            load_config(path)
    assert "turtle" not in sys.modules
    assert list(tmp_path.iterdir()) == [path]


def mutated(text: str, draws: random.Random) -> bytes:
    """Return a config changed in one or a few of many ways."""
    lines = text.splitlines()
    tricks = [
        lambda: lines.insert(draws.randrange(len(lines)), draws.choice(lines)),
        lambda: lines.pop(draws.randrange(len(lines))),
        lambda: lines.__setitem__(i := draws.randrange(len(lines)), " " * 3 + lines[i]),
        lambda: lines.__setitem__(i := draws.randrange(len(lines)), "\t" + lines[i]),
        lambda: lines.append("x: &a [" + ", ".join(["*a"] * 9) + "]"),
        lambda: lines.append("model: !!python/object/apply:os.system ['touch harm']"),
        lambda: lines.append("<<: {name: merged}"),
        lambda: lines.append("? [complex, key]\n: value"),
        lambda: lines.append("--- second document"),
        lambda: lines.append(
            draws.choice(["trainer: []", "metrics: 3", "dataset: null", "loss: {}"])
        ),
        lambda: lines.append(f"deep: {'[' * 60}{']' * 60}"),
        lambda: lines.append(
            "seed: " + draws.choice(["1e999", "-1", "0x", ".nan", "true", "9" * 5000])
        ),
    ]
    for _ in range(draws.randint(1, 3)):
        draws.choice(tricks)()
    content = "\n".join(lines).encode()
    if draws.random() < 0.3:
        position = draws.randrange(len(content))
        content = content[:position] + draws.randbytes(draws.randint(1, 4)) + content[position:]
    if draws.random() < 0.1:
        content = draws.choice([b"", b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n")])
    return content


def test_mutated_configs_end_in_mistakes_and_nothing_else(tmp_path):
    """500 mutated configs (keys, types, nesting, anchors, tags, tabs, BOM, CRLF, binary, empty):
    each is right or ends in lines that name the file, without another error and without a file."""
    text = Path("configs/digits.yaml").read_text()
    path = tmp_path / "mutated.yaml"
    draws = random.Random(5)
    num_refused = 0
    for _ in range(NUM_MUTATED):
        path.write_bytes(mutated(text, draws))
        try:
            load_config(path)
        except ConfigError as error:
            num_refused += 1
            for line in str(error).splitlines():
                assert line.startswith((str(path), "cannot read")), line
    assert num_refused > NUM_MUTATED * 0.8
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9))
            for i in range(9)
        ), "10,000"),
        (b"x: " + b"a" * 10_000_000, "larger than 1,000,000 bytes"),
        (b"\x00\x01\x02\xff" * 100, ""),
        (b"", ""),
    ],
    ids=["bomb", "10 MB", "binary", "empty"],
)  # fmt: skip
def test_a_config_that_is_none_is_refused_quickly(tmp_path, content, words):
    """Anchors that explode, 10 MB, binary, empty: exit 2, one line each, no traceback."""
    path = tmp_path / "none.yaml"
    path.write_bytes(content)
    result = CliRunner().invoke(train_command.app, ["-c", str(path)])
    assert result.exit_code == 2
    assert words in result.output
    assert len(result.output.splitlines()) == 1


def test_weights_are_read_from_checkpoints_and_safetensors_alone(tmp_path):
    """`model.weights` of a pickle with a payload, a script or a directory: exit 3, nothing run."""
    target = tmp_path / "harm"
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Payload(target)))
    (tmp_path / "b.py").write_text(f"open({str(target)!r}, 'w')")
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "d.pth").mkdir()
    for name in ("a.pth", "b.py", "c.safetensors", "d.pth", "missing.pth"):
        changes = [f"model.weights={tmp_path / name}", f"trainer.save_dir={tmp_path}/saved"]
        result = CliRunner().invoke(train_command.app, ["-c", "digits.yaml", *changes])
        assert result.exit_code == 3, name
        assert name in result.output
    assert not target.exists()
    assert not (tmp_path / "saved").exists()


def test_every_tensorboard_command_stays_on_this_machine(project_root):
    """Every `tensorboard` command that the project prints or documents binds to 127.0.0.1."""
    files = subprocess.run(
        ["grep", "-rlE", "tensorboard --logdir", "--include=*.py", "--include=*.md", "."],
        cwd=project_root, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    lines = [
        line
        for file in files
        if "/.venv/" not in file and "/faults/" not in file
        for line in (project_root / file).read_text().splitlines()
        if "tensorboard --logdir" in line
    ]
    assert lines
    assert all("--host 127.0.0.1" in line for line in lines)
