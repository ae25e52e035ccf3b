"""Pictures that answer: each is drawn in the browser from inputs that Python sends once.

from hybridlab.widgets import CacheRace, Duality, FilterExplorer, MemoryLoad, MixingMatrix, StateScope, TaylorSoftmax
from hybridlab.widgets import recurrence, scope, weights_of
"""

from hybridlab.widgets.cache_race import CacheRace
from hybridlab.widgets.duality import Duality
from hybridlab.widgets.filter_explorer import FilterExplorer
from hybridlab.widgets.memory_load import MemoryLoad
from hybridlab.widgets.mixing_matrix import MixingMatrix
from hybridlab.widgets.recurrence import Recurrence, recurrence, weights_of
from hybridlab.widgets.state_scope import StateScope, scope
from hybridlab.widgets.taylor_softmax import TaylorSoftmax

__all__ = [
    "CacheRace",
    "Duality",
    "FilterExplorer",
    "MemoryLoad",
    "MixingMatrix",
    "Recurrence",
    "StateScope",
    "TaylorSoftmax",
    "recurrence",
    "scope",
    "weights_of",
]
