"""Datasets, loaders, transforms, samplers and collate functions; a config names them."""

import base  # noqa: F401  before torchvision: see base.runtime.torchvision_ops
