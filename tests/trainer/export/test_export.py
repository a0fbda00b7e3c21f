"""Exported models: they are the averaged model, for any batch size, without the project's code."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

from base.config.check import load_config
from base.errors import UsageError
from base.registry import MODELS
from trainer.export.__main__ import app
from trainer.export.export import as_weights, convert, difference
from trainer.parts import build_model
from trainer.resume import find_trained

CPU = torch.device("cpu")


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def trained(tree, start):
    """A run of the blobs, its weights averaged; validation holds back 8 of them."""
    return start(tree, "trainer.epochs=1")


@pytest.fixture
def averaged(trained):
    """The model of that run with its averaged weights."""
    _, state, config = find_trained(trained, [])
    model = build_model(config, CPU, load_weights=False)
    model.load_state_dict(state["ema"])
    return model.eval()


def images(count):
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(count))


def test_a_program_runs_anywhere_without_the_projects_code(trained, averaged, tmp_path):
    result = run(trained, "--format", "torch_export")
    assert result.exit_code == 0, result.output
    assert "outputs differ from the model's by 0 at most" in result.output
    torch.save([images(1), images(7)], tmp_path / "inputs.pt")
    code = (
        "import sys, torch; model = torch.export.load(sys.argv[1]).module(); "
        "outputs = [model(batch) for batch in torch.load('inputs.pt')]; "
        "assert not {'base', 'model', 'trainer'} & set(sys.modules); "
        "torch.save(outputs, 'outputs.pt')"
    )
    file = trained / "export" / "model.pt2"
    subprocess.run([sys.executable, "-c", code, str(file)], cwd=tmp_path, check=True)
    for count, output in zip((1, 7), torch.load(tmp_path / "outputs.pt"), strict=True):
        assert torch.allclose(output, averaged(images(count)), atol=1e-6)
    assert [path.name for path in file.parent.iterdir()] == ["model.pt2"]


def test_onnx_gives_the_same_for_any_batch_size(trained, averaged, tmp_path):
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    file = tmp_path / "new" / "blobs.onnx"
    result = run(trained, "--format", "onnx", "--output", file)
    assert result.exit_code == 0, result.output
    evaluator = reference.ReferenceEvaluator(str(file))
    for count in (1, 5):
        (output,) = evaluator.run(None, {evaluator.input_names[0]: images(count).numpy()})
        assert torch.allclose(torch.from_numpy(output), averaged(images(count)), atol=1e-5)


def test_weights_as_safetensors_start_another_run(trained, averaged, tmp_path):
    assert run(trained, "--format", "safetensors").exit_code == 0
    file = trained / "export" / "model.safetensors"
    config = load_config(trained / "config.yaml", [f"model.weights={file}"])
    again = build_model(config, CPU).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in averaged.state_dict().items())
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    assert json.loads(metadata["input_shapes"]) == [[1, 6, 6]]
    assert json.loads(metadata["config"])["name"] == "blobs"


def test_shared_weights_are_written_for_each_layer(load, tree):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    layers = [{"type": "Linear", "args": [3, 3]}] * 2
    config = load(tree | {"model": {"type": "Sequential", "args": layers}})
    _, again = as_weights(model, config, {})
    assert difference(model, again, torch.rand(2, 3)) == 0


@MODELS.register()
class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x):
        x = self.layer(x.flatten(1))
        return x * 2 if x.sum() > 0 else x


@MODELS.register()
class Draws(Decides):
    def forward(self, x):
        return F.dropout(self.layer(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Decides, "Decides cannot be exported as torch_export: GuardOnDataDependentSymNode: Could"),
        (Draws, "does the model draw at random in eval mode?"),
    ],
)
def test_a_model_that_cannot_be_exported_leaves_nothing(tree, start, model, message):
    path = start(tree | {"model": model.__name__}, "trainer.epochs=1", "trainer.ema_decay=null")
    result = run(path, "--format", "torch_export")
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 4  # no traceback
    assert not (path / "export").exists()


class Rows(nn.Module):
    def forward(self, x):
        return torch.stack([row * 2 for row in x])


def test_a_model_that_fixes_the_batch_size_is_refused():
    with pytest.raises(UsageError, match="Rows cannot be exported as torch_export: "):
        convert(Rows(), "torch_export", torch.rand(4, 3), torch.rand(1, 3), varies=False)


class Pair(nn.Module):
    def forward(self, inputs):
        return {"sum": inputs["a"] + inputs["b"][0], "a": inputs["a"] * 2}


def test_a_model_may_take_and_give_nests_of_tensors():
    several, single = ({"a": torch.rand(n, 3), "b": [torch.rand(n, 3)]} for n in (4, 1))
    _, exported = convert(Pair(), "torch_export", several, single, varies=False)
    assert difference(Pair(), exported, single) == 0


def test_dimensions_that_vary_in_the_data_stay_free():
    words = torch.ones(4, 5, dtype=torch.long)
    _, exported = convert(nn.Embedding(9, 2), "torch_export", words, words[:1], varies=True)
    assert exported(torch.ones(3, 8, dtype=torch.long)).shape == (3, 8, 2)


def test_a_difference_is_refused():
    with pytest.raises(Exception, match=r"differ from the model's by up to 0\.01, allowed are"):
        difference(lambda x: x, lambda x: x + 0.01, torch.zeros(2))


def test_missing_packages_are_named(trained, monkeypatch):
    monkeypatch.setattr("trainer.export.export.find_spec", lambda name: None)
    result = run(trained, "--format", "onnx")
    assert result.exit_code == 2
    assert result.output.strip().endswith("pip install onnx onnxscript")
