"""Every loss of torch that takes (output, target) does from a config what it does by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from base.config.check import check_config
from base.config.source import Source
from base.errors import ConfigError
from base.registry import LOSSES
from trainer import parts

CPU = torch.device("cpu")
SCORES, VALUES = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
SHARES = VALUES.softmax(1)
SIGNS = VALUES.sign()
CLASSES = torch.tensor([2, 0, 1, 1])
SETS = torch.tensor([[0, 2, -1], [1, -1, -1], [0, 1, 2], [2, -1, -1]])  # -1 ends a set

# Each kind of target with an output that fits it, and the losses as class and as function.
PAIRS = {
    "values": (SCORES, VALUES),
    "positive values": (SCORES, VALUES.abs()),
    "classes": (SCORES, CLASSES),
    "log shares, classes": (SCORES.log_softmax(1), CLASSES),
    "log shares": (SCORES.log_softmax(1), SHARES),
    "shares": (SCORES.sigmoid(), SHARES),
    "scores, shares": (SCORES, SHARES),
    "signs": (SCORES, SIGNS),
    "sets": (SCORES, SETS),
}
TAKES = {
    "values": "L1Loss l1_loss MSELoss mse_loss SmoothL1Loss smooth_l1_loss HuberLoss huber_loss",
    "positive values": "PoissonNLLLoss poisson_nll_loss",
    "classes": "CrossEntropyLoss cross_entropy MultiMarginLoss multi_margin_loss",
    "log shares, classes": "NLLLoss",
    "log shares": "KLDivLoss kl_div",
    "shares": "BCELoss binary_cross_entropy",
    "scores, shares": (
        "BCEWithLogitsLoss binary_cross_entropy_with_logits "
        "MultiLabelSoftMarginLoss multilabel_soft_margin_loss"
    ),
    "signs": "HingeEmbeddingLoss hinge_embedding_loss SoftMarginLoss soft_margin_loss",
    "sets": "MultiLabelMarginLoss multilabel_margin_loss",
}
REFUSED_CLASSES = [
    "CosineEmbeddingLoss", "CTCLoss", "GaussianNLLLoss", "MarginRankingLoss", "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]  # fmt: skip
REFUSED_FUNCTIONS = [
    "cosine_embedding_loss", "ctc_loss", "gaussian_nll_loss", "margin_ranking_loss",
    "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip
# They bring a layer of their own, or want its weights; two of them torch has since 2.13.
OF_LAYERS = ["AdaptiveLogSoftmaxWithLoss", "LinearCrossEntropyLoss", "linear_cross_entropy"]
NAMES = [(name, pair) for pair, names in TAKES.items() for name in names.split()]


def loss_of(kind, args=None):
    tree = {
        "name": "test",
        "dataset": "Blobs",
        "model": {"type": "Linear", "args": [3, 3]},
        "loss": {"type": kind, "args": args or {}},
        "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
    }
    return parts.build_loss(check_config(Source(tree)), CPU)


def by_hand(kind, args):
    return (
        getattr(nn, kind)(**args) if hasattr(nn, kind) else lambda *x: getattr(F, kind)(*x, **args)
    )


@pytest.mark.parametrize(("kind", "pair"), NAMES, ids=[name for name, _ in NAMES])
@pytest.mark.parametrize("args", [{}, {"reduction": "sum"}], ids=["mean", "sum"])
def test_a_loss_is_that_of_torch(kind, pair, args):
    output, target = PAIRS[pair]
    found = loss_of(kind, args)(output, target)
    assert found.shape == ()
    assert torch.isfinite(found)
    assert found == by_hand(kind, args)(output, target)


@pytest.mark.parametrize("kind", ["CrossEntropyLoss", "cross_entropy", "NLLLoss"])
@pytest.mark.parametrize(
    "args",
    [
        {"weight": [1, 2.5, 0.5]},
        {"ignore_index": 1},
        {"label_smoothing": 0.1},
        {"weight": [1, 2, 3], "ignore_index": 0, "label_smoothing": 0.2},
    ],
    ids="+".join,
)
def test_classes_are_weighted_smoothed_and_ignored(kind, args):
    if kind == "NLLLoss":
        args = {key: value for key, value in args.items() if key != "label_smoothing"}
    tensors = {key: torch.tensor(args[key]) for key in ("weight",) if key in args}
    output = SCORES.log_softmax(1)
    direct = by_hand(kind, args | {key: value.float() for key, value in tensors.items()})
    found = loss_of(kind, args)(output, CLASSES)
    assert found == direct(output, CLASSES)
    assert args == {} or found != by_hand(kind, {})(output, CLASSES)


@pytest.mark.parametrize("kind", ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"])
def test_positives_are_weighted(kind):
    found = loss_of(kind, {"pos_weight": [1, 2, 3]})(SCORES, SHARES)
    weight = torch.tensor([1.0, 2.0, 3.0])
    assert found == F.binary_cross_entropy_with_logits(SCORES, SHARES, pos_weight=weight)


@pytest.mark.parametrize("kind", REFUSED_CLASSES)
def test_a_class_that_takes_more_is_refused_with_the_way_out(kind):
    message = (
        rf"loss: {kind} takes \(\w+, .*\), the stock step gives "
        r"\(output, target\); override train_step in a trainer of yours$"
    )
    with pytest.raises(ConfigError, match=message):
        loss_of(kind)


@pytest.mark.parametrize("kind", REFUSED_FUNCTIONS)
def test_a_function_that_takes_more_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"loss: {kind} needs '\w+'"):
        loss_of(kind)


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="torch has it since 2.13")
def test_a_loss_may_bring_a_layer_of_its_own():
    loss = loss_of("LinearCrossEntropyLoss", {"in_features": 3, "num_classes": 5})
    weights = next(loss.parameters())
    expected = F.cross_entropy(F.linear(SCORES, weights), CLASSES)
    assert loss(SCORES, CLASSES).item() == pytest.approx(expected.item())


def test_every_loss_of_torch_is_tried():
    of_torch = {n for n, source in LOSSES.names().items() if source.startswith("torch.")}
    tried = {name for name, _ in NAMES} | {*REFUSED_CLASSES, *REFUSED_FUNCTIONS}
    assert tried <= of_torch <= tried | {*OF_LAYERS}
