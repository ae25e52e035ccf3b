"""The mechanisms: one file each, every one an equation with a literal naive form and kernels that must agree with it."""

from hybridlab.ops.attention import AttentionState, attention
from hybridlab.ops.delta_rule import delta_rule
from hybridlab.ops.gated_delta_rule import gated_delta_rule
from hybridlab.ops.linear_recurrence import linear_recurrence
from hybridlab.ops.long_conv import long_conv
from hybridlab.ops.modal_conv import modal_conv
from hybridlab.ops.retention import retention
from hybridlab.ops.rg_lru import rg_lru
from hybridlab.ops.selective_scan import selective_scan
from hybridlab.ops.short_conv import short_conv
from hybridlab.ops.ssd import ssd
from hybridlab.ops.taylor_attention import TaylorState, taylor_attention
from hybridlab.ops.wkv4 import wkv4
from hybridlab.ops.wkv6 import wkv6
from hybridlab.ops.wkv7 import wkv7

__all__ = [
    "AttentionState",
    "TaylorState",
    "attention",
    "delta_rule",
    "gated_delta_rule",
    "linear_recurrence",
    "long_conv",
    "modal_conv",
    "retention",
    "rg_lru",
    "selective_scan",
    "short_conv",
    "ssd",
    "taylor_attention",
    "wkv4",
    "wkv6",
    "wkv7",
]
