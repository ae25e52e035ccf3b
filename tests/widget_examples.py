"""One example of each widget, as code that a notebook's cell runs: what the browser tests move and `make bench` times."""

EXAMPLES = {
    "MixingMatrix": """
import numpy as np
from hybridlab.widgets import MixingMatrix

weights = np.tril(np.random.default_rng(3).normal(size=(64, 64)))
MixingMatrix(weights, "64 tokens")
""",
    "Duality": """
import numpy as np
from hybridlab.widgets import Duality

rng = np.random.default_rng(5)
B, C = rng.normal(size=(2, 64, 16))
Duality(rng.normal(size=(64, 16)), rng.exponential(0.2, 64), -1.0, B, C)
""",
    "StateScope": """
from hybridlab.widgets.state_scope import StateScope
from hybridlab.widgets.state_traces import MatrixTrace

rng = np.random.default_rng(4)
write, read, values = rng.normal(size=(3, 128, 64))
StateScope([MatrixTrace(write, -np.exp(rng.normal(size=(128, 64)) - 3), read, values, np.ones(64))])
""",
    "CacheRace": """
from hybridlab.widgets import CacheRace

CacheRace()
""",
    "MemoryLoad": """
from hybridlab.widgets import MemoryLoad

MemoryLoad()
""",
    "TaylorSoftmax": """
import numpy as np
from hybridlab.widgets import TaylorSoftmax

q, k, v = np.random.default_rng(6).normal(size=(3, 64, 64))
TaylorSoftmax(q, k, v)
""",
    "FilterExplorer": """
from hybridlab.widgets import FilterExplorer

FilterExplorer()
""",
    "PatternBuilder": """
from hybridlab.widgets import PatternBuilder

PatternBuilder()
""",
}
