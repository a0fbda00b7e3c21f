"""Lets torchvision work beside a CPU-only torch; imported before anything imports torchvision.

PyPI's torchvision is built against PyPI's CUDA torch. Beside another build its compiled operators
cannot be loaded, and `import torchvision` fails with "operator torchvision::nms does not exist"
though datasets, transforms and models need none of them. Declaring the missing operators is enough;
calling one still fails. Where torchvision is sound, nothing is changed.
"""

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing_operators() -> torch.library.Library | None:
    """Return the library that holds the declarations, or None where none were missing."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or sys.platform == "win32":
        return None
    with suppress(OSError):  # built against another torch: exactly the case this module is for
        for compiled in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(compiled))
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator)
    return library


_declared = declare_missing_operators()  # a Library takes its declarations with it when it goes
