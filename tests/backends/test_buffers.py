import torch

from backends.twin.buffers import BufferPool


def test_a_buffer_comes_back_when_its_lease_is_gone() -> None:
    pool, like = BufferPool(), torch.zeros(1)
    first = pool.lease((3, 4), like)
    address = first.buffer.data_ptr()
    second = pool.lease((3, 4), like)
    assert second.buffer.data_ptr() != address
    del first
    assert pool.lease((4, 3), like).buffer.data_ptr() != address
    assert pool.lease((3, 4), like.double()).buffer.dtype == torch.float64
    assert pool.lease((3, 4), like).buffer.data_ptr() == address


def test_few_idle_buffers_are_kept() -> None:
    pool, like = BufferPool(), torch.zeros(1)
    leases = [pool.lease((2,), like) for _ in range(10)]
    del leases
    assert len(pool._idle) == 4
    pool.clear()
    assert not pool._idle
