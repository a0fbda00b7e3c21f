"""The contract of callbacks."""

from base import Callback


def test_every_moment_may_be_left_alone_and_there_is_nothing_to_remember():
    callback = Callback()
    for hook in ("on_fit_start", "on_epoch_start", "on_step", "on_fit_end"):
        assert getattr(callback, hook)(None) is None
    assert callback.on_epoch_end(None, {"epoch": 1}) is None
    assert callback.state_dict() == {}
    callback.load_state_dict({})
