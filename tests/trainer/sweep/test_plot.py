"""The figure of a sweep: its axes can be read."""

from itertools import pairwise

import pandas as pd
import pytest

from trainer.sweep import plot as sweep_plots


@pytest.fixture
def axes(monkeypatch, tmp_path):
    """Return what draws the values of one parameter and gives its axes."""

    def draw(values, scale):
        figures = []
        monkeypatch.setattr(sweep_plots, "save_figure", lambda figure, path: figures.append(figure))
        rows = {"trial": range(len(values)), "state": "done", "value": 1.0, "lr": values}
        title = {"title": "digits", "metric": "min val_loss"}
        sweep_plots.plot_sweep(pd.DataFrame(rows), {"lr": scale}, tmp_path / "x.png", **title)
        figures[0].draw_without_rendering()
        return figures[0].axes[1].xaxis

    return draw


@pytest.mark.parametrize("values", [[1e-5, 1e-1], [1e-3, 3e-2], [2e-5, 1e-3], [0.002, 0.02]])
def test_labels_of_a_log_scale_do_not_overlap(axes, values):
    axis = axes(values, "log")
    low, high = axis.get_view_interval()
    labels = [label for label in axis.get_ticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_numbers_to_choose_from_stand_in_their_order_and_texts_after_them(axes):
    labels = axes([0.01, "adam", 0.001, 5, [8, 0]], "text").get_ticklabels()
    assert [label.get_text() for label in labels] == ["0.001", "0.01", "5", "adam", "[8, 0]"]
