import pytest
import torch

from firstspike.layers import LIFLinear, Network
from firstspike.neuron import LIF
from firstspike.training.process import threads_worth_starting


@pytest.mark.parametrize(("inputs", "within"), [(5, 1), (784, 2)])
def test_small_networks_train_on_one_thread_and_the_setting_comes_back(inputs, within):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_worth_starting(Network(LIFLinear(inputs, 30, LIF(2.0))), 150):
            assert torch.get_num_threads() == within
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
