"""The mechanisms: one file each, every one an equation with a literal naive form and kernels that must agree with it."""

from hybridlab.ops.attention import AttentionState, attention
from hybridlab.ops.linear_recurrence import linear_recurrence
from hybridlab.ops.selective_scan import selective_scan
from hybridlab.ops.wkv4 import wkv4
from hybridlab.ops.wkv6 import wkv6

__all__ = ["AttentionState", "attention", "linear_recurrence", "selective_scan", "wkv4", "wkv6"]
