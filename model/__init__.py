"""Networks, losses and metrics of this project; a config names them by their own names."""

import base  # noqa: F401  before torchvision: see base.runtime.torchvision_ops
