"""Bytes that autograd keeps: each storage once, views with what they hold alive, nothing without a gradient."""

import torch
from torch.utils.checkpoint import checkpoint

from hybridlab.course.bytes_kept import bytes_kept

FLOAT = 4


def test_a_product_keeps_both_factors_and_a_square_keeps_one():
    x, y = (torch.rand(100, requires_grad=True) for _ in range(2))
    assert bytes_kept(lambda: x * y) == 2 * 100 * FLOAT
    assert bytes_kept(lambda: x * x) == 100 * FLOAT


def test_a_chain_keeps_each_of_its_results_although_nobody_else_does():
    x = torch.rand(100, requires_grad=True)
    assert bytes_kept(lambda: x.exp().exp().exp()) == 3 * 100 * FLOAT


def test_a_view_holds_its_whole_storage_and_two_views_hold_it_once():
    x = torch.rand(100)
    y = torch.rand(1, requires_grad=True)
    assert bytes_kept(lambda: y * x[:10]) == 100 * FLOAT
    assert bytes_kept(lambda: (y * x[:10], y * x[50:])) == 100 * FLOAT


def test_a_sum_and_what_needs_no_gradient_keep_nothing():
    x = torch.rand(100, requires_grad=True)
    assert bytes_kept(lambda: x + 1) == 0
    assert bytes_kept(lambda: x.detach().exp()) == 0


def test_a_checkpoint_keeps_its_input_only():
    x = torch.rand(100, requires_grad=True)
    assert bytes_kept(lambda: checkpoint(lambda x: x.exp().exp(), x, use_reentrant=False)) <= 100 * FLOAT
