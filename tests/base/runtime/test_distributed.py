"""One process or many, as torchrun's environment says."""

import torch

from base.runtime import distributed


def test_one_process_alone_is_the_main_one_and_waits_for_nobody():
    assert distributed.rank() == distributed.local_rank() == 0
    assert distributed.world_size() == distributed.local_world_size() == 1
    assert distributed.is_main()
    assert distributed.max_over_ranks(3) == 3
    assert distributed.gather_objects("x") == ["x"]
    assert distributed.share("x") == "x"
    distributed.barrier()
    with distributed.process_group(torch.device("cpu")):
        assert not torch.distributed.is_initialized()


def test_the_environment_of_torchrun_is_read(monkeypatch):
    values = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert (distributed.rank(), distributed.local_rank()) == (5, 1)
    assert (distributed.world_size(), distributed.local_world_size()) == (8, 4)
    assert not distributed.is_main()


def test_a_group_of_ranks_shares_gathers_and_agrees(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)  # so that nothing is short-cut
    with distributed.process_group(torch.device("cpu")):
        assert torch.distributed.is_initialized()
        assert distributed.max_over_ranks(3) == 3
        assert distributed.share({"x": 1}) == {"x": 1}
        distributed.barrier()
    assert not torch.distributed.is_initialized()
