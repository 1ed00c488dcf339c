import torch

from lifelong.training.denormals import flush_denormals


def test_numbers_below_the_smallest_normal_float_are_zero():
    small = torch.full((64,), 1e-30)
    try:
        torch.set_flush_denormal(False)
        assert (small * 1e-10 > 0).all()
        if flush_denormals():
            assert (small * 1e-10 == 0).all()
            assert (small * 1e-7 > 0).all(), "a normal float stays"
    finally:
        torch.set_flush_denormal(False)
