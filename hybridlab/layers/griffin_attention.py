"""Griffin's local attention: one head of keys for all queries, half of each head turned, and a start for variance 1."""

from hybridlab.layers import initial
from hybridlab.layers.grouped_attention import GroupedAttention
from hybridlab.layers.initial import ONLY_LAYER, Depth
from hybridlab.layers.rotary import Rotary

# The first half of each head knows where it stands, the second half does not.
HALF = Rotary(fraction=0.5)


class GriffinAttention(GroupedAttention):
    """Grouped attention over a window, whose output has a bias and whose maps start as all of Griffin's do.

    The authors use one group of keys and no biases but the output's; transformers offers more.

    Args:
        width: D.
        heads: H.
        groups: G, heads of keys and values; G divides H.
        head_width: K = V.
        window: keys a query sees, itself included.
        rotary: positions.
        input_bias: whether queries, keys and values have biases too.
        depth: where the layer stands, for its initial values.

    Source: Griffin, arXiv 2402.19427, section 2.3; half a head and the bias from its code. Chapter 10.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        groups: int,
        head_width: int,
        window: int,
        rotary: Rotary = HALF,
        input_bias: bool = False,
        depth: Depth = ONLY_LAYER,
    ) -> None:
        super().__init__(width, heads, groups, head_width, window=window, rotary=rotary)
        self.query = initial.unit_linear(width, heads * head_width, bias=input_bias)
        self.key = initial.unit_linear(width, groups * head_width, bias=input_bias)
        self.value = initial.unit_linear(width, groups * head_width, bias=input_bias)
        self.output = initial.unit_linear(heads * head_width, width, variance=2 / depth.layers)
