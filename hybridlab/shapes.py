"""The legend: every dimension letter and every named kind of tensor, once.

Letters (paper symbols for tensors, words for everything else):

    B  batch            T  time (tokens)        S  past tokens held in a cache
    D  model width      H  heads                C  channels of a channel-wise mixer (RWKV-4)
    K  key width of a head                      V  value width of a head
    E  inner width of a state-space mixer       N  state size of a state-space mixer
    P  width of a state-space head              G  groups that share keys (or B and C)
    F  features of a feature map                W  window or filter width

Axes come in the order batch, time, head, width. Annotations are checked in the tests (jaxtyping) and cost nothing in use.
An axis written `#B` or `#T` may have size 1: the tensor is then constant along it and is never copied.
An axis written `_S` is not checked, because a call returns more of it than it was given.
`Float` means any floating dtype: float64 in comparisons, float32 in use, bfloat16 on a GPU.
"""

from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

# What flows between layers.
TokenIds = Int[Tensor, "B T"]
Stream = Float[Tensor, "B T D"]
Logits = Float[Tensor, "B T vocabulary"]
Position = Int[Tensor, ""]

# What flows into mixers with heads.
Receptances = Float[Tensor, "B T H K"]
Queries = Float[Tensor, "B T H K"]
Keys = Float[Tensor, "B T H K"]
Values = Float[Tensor, "B T H V"]
GroupedKeys = Float[Tensor, "B S G K"]
GroupedValues = Float[Tensor, "B S G V"]
KeyDecays = Float[Tensor, "#B #T H K"]
KeyBonus = Float[Tensor, "H K"]
EachKeyDecay = Float[Tensor, "B T H K"]
HeadDecays = Float[Tensor, "B T H"]
WriteStrengths = Float[Tensor, "B T H"]

# What flows into mixers without heads.
Channels = Float[Tensor, "B T C"]
PerChannel = Float[Tensor, "C"]
PerWidth = Float[Tensor, "D"]
Resets = Bool[Tensor, "B T"]
ConvWeight = Float[Tensor, "D W"]
LongFilter = Float[Tensor, "D W"]
Modes = Complex[Tensor, "D N"]

# What flows into state-space mixers: inputs and steps, the vectors that write and read the state, decay rates.
Inner = Float[Tensor, "B T E"]
StateVectors = Float[Tensor, "B T N"]
Rates = Float[Tensor, "E N"]
PerInner = Float[Tensor, "E"]

# The same where the inner width is divided into heads, with B and C shared by a group of them.
HeadInputs = Float[Tensor, "B T H P"]
Steps = Float[Tensor, "B T H"]
GroupVectors = Float[Tensor, "B T G N"]
PerHead = Float[Tensor, "H"]

# What is carried from one call to the next.
MatrixState = Float[Tensor, "B H K V"]
FeatureMatrix = Float[Tensor, "B H F V"]
FeatureSum = Float[Tensor, "B H F"]
Wkv4State = Float[Tensor, "B C 3"]
ShiftState = Float[Tensor, "B D"]
ChannelState = Float[Tensor, "B D"]
ConvState = Float[Tensor, "B W-1 D"]
PastInputs = Float[Tensor, "B _S D"]
PastCodes = Float[Tensor, "B _S code"]
PastIds = Int[Tensor, "B _S"]
ModalState = Complex[Tensor, "B D N"]
ScanState = Float[Tensor, "B E N"]
SSDState = Float[Tensor, "B H P N"]
