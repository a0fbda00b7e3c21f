"""The batch loop, the parts of a run, and where it starts, lives and ends."""

from trainer.trainer import Trainer

__all__ = ["Trainer"]
