"""Trained models as files for other programs: ONNX, torch.export, safetensors."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils.data import default_collate

from base.checkpoint.files import make_folder, write_atomic
from base.config.schema import Config
from base.errors import UsageError
from base.runtime.device import tensors_of
from trainer.assembly import load_for_evaluation
from trainer.evaluation import class_names
from trainer.parts import build_model
from trainer.predict.examples import evaluated_model, example_data
from trainer.run import folder_beside

log = logging.getLogger("train")

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
EXAMPLES = 4  # in the batch that is traced; 0 and 1 would be taken for fixed sizes
RTOL, ATOL = 1e-3, 1e-4  # other kernels add in another order
ALLOWED = f"{ATOL:g} and {RTOL:g} of a value"


def export_model(
    config: Config, path: Path, state: Mapping[str, Any], kind: str, output: Path | None = None
) -> Path:
    """Write the model of the checkpoint at `path`, in eval mode, and return the file.

    It is made on the CPU in 32 bits. What was written is loaded again first and must give the
    model's own outputs on batches of two sizes.

    Raises:
        UsageError: a package is missing, or the model cannot be exported; nothing was written.
        WriteError: the disk is full or the place cannot be written.
    """
    if kind == "onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UsageError("onnx needs two packages more: pip install onnx onnxscript")
    trainer = load_for_evaluation(config, state, torch.device("cpu"), build_loader=example_data)
    model, loader = evaluated_model(trainer), trainer.valid_data_loader
    positions = np.arange(EXAMPLES) % loader.num_samples
    several, single = loader.inputs_at(positions), loader.inputs_at(positions[:1])
    if kind == "safetensors":
        shapes = [list(tensor.shape[1:]) for tensor in tensors_of(single)]
        metadata = {"classes": json.dumps(class_names(loader)), "input_shapes": json.dumps(shapes)}
        content, run = as_weights(model, config, {"config": state["config"], **metadata})
    else:
        varies = loader.dataset.collate_fn is not default_collate
        with _quiet():
            content, run = convert(model, kind, several, single, varies=varies)
    greatest = max(difference(model, run, batch) for batch in (several, single))
    output = output or folder_beside(path, "export") / f"model{SUFFIXES[kind]}"
    make_folder(output.parent)
    write_atomic(output, content)
    log.info("outputs differ from the model's by %.2g at most (allowed: %s)", greatest, ALLOWED)
    log.info("%s", output)
    return output


def convert(
    model: nn.Module, kind: str, several: Any, single: Any, *, varies: bool
) -> tuple[bytes, Callable]:
    """Return the file of a model traced for batches of any size, and what runs it.

    Other dimensions may be of any size where the data's vary.

    Raises:
        UsageError: the model cannot be traced, or the format has no such operation.
    """
    shapes, other = ShapesCollection(), Dim.AUTO if varies else Dim.STATIC
    for tensor in tensors_of(several):
        shapes[tensor] = {0: Dim.DYNAMIC} | dict.fromkeys(range(1, tensor.ndim), other)
    try:
        program = torch.export.export(model, (several,), dynamic_shapes=shapes)
        content, run = as_onnx(program) if kind == "onnx" else as_program(program)
        run(single)
    except Exception as error:  # tracing runs the user's own code, and fails in many ways
        text = " ".join(str(error.__cause__ or error).split(". ")[0].split())
        raise UsageError(
            f"{type(model).__name__} cannot be exported as {kind}: {type(error).__name__}: {text}. "
            "Where forward() decides by values, torch.where may do instead of an if; --format "
            "safetensors writes the weights alone"
        ) from error
    return content, run


# --- formats: what is written, and what runs it when it is loaded again ---------------------------


def as_program(program: ExportedProgram) -> tuple[bytes, Callable]:
    """Return a file for `torch.export.load`, and its program."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue(), torch.export.load(io.BytesIO(file.getvalue())).module()


def as_onnx(program: ExportedProgram) -> tuple[bytes, Callable]:
    """Return an ONNX file, checked, and what evaluates it."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    content = exported.model_proto.SerializeToString()
    loaded = onnx.load_from_string(content)
    onnx.checker.check_model(loaded, full_check=True)
    evaluator = ReferenceEvaluator(loaded)

    def run(inputs: Any) -> list[Tensor]:
        arrays = [tensor.numpy() for tensor in tensors_of(inputs)]
        outputs = evaluator.run(None, dict(zip(evaluator.input_names, arrays, strict=True)))
        return [torch.from_numpy(np.asarray(output)) for output in outputs]

    return content, run


def as_weights(
    model: nn.Module, config: Config, metadata: dict[str, str]
) -> tuple[bytes, Callable]:
    """Return a safetensors file, and a new model of the config that has its weights."""
    from safetensors.torch import load, save

    weights = {  # copies, since safetensors takes none that layers share
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    content = save(weights, metadata)
    again = build_model(config, torch.device("cpu"), load_weights=False).eval()
    again.load_state_dict(load(content))
    return content, again


# --- the check ------------------------------------------------------------------------------------


def difference(model: Callable, exported: Callable, inputs: Any) -> float:
    """Return the greatest difference between the outputs of a model and of its export.

    Raises:
        UsageError: it is more than is allowed, or the shapes differ.
    """
    with torch.no_grad():
        wanted, found = ([*tensors_of(run(inputs))] for run in (model, exported))
    if [tensor.shape for tensor in wanted] != [tensor.shape for tensor in found]:
        raise UsageError("the exported model's outputs have other shapes than the model's")
    pairs = [(a.double(), b.double()) for a, b in zip(found, wanted, strict=True)]
    greatest = max(float((a - b).abs().max()) for a, b in pairs)
    if not all(torch.allclose(a, b, rtol=RTOL, atol=ATOL) for a, b in pairs):
        raise UsageError(
            f"the exported model's outputs differ from the model's by up to {greatest:.2g}, "
            f"allowed are {ALLOWED}; does the model draw at random in eval mode?"
        )
    return greatest


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the console what exporters tell their own developers."""
    before, nowhere = logging.root.manager.disable, io.StringIO()
    warn = warnings.catch_warnings(action="ignore")
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere), warn:
            yield
    finally:
        logging.disable(before)
