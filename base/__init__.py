"""The contracts of the project; it imports nothing else of it."""

from base.runtime import torchvision_ops  # noqa: F401, I001  first: the others may import torchvision
from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from base.base_trainer import BaseTrainer
from base.base_writer import BaseWriter
from base.callback import Callback

__all__ = ["BaseDataLoader", "BaseModel", "BaseTrainer", "BaseWriter", "Callback"]
