"""Pictures that answer: each is drawn in the browser from inputs that Python sends once.

from hybridlab.widgets import CacheRace, Duality, FilterExplorer, MemoryLoad, MixingMatrix, PatternBuilder, StateScope
from hybridlab.widgets import TaylorSoftmax, recurrence, scope, weights_of
"""

from hybridlab.widgets.cache_race import CacheRace
from hybridlab.widgets.duality import Duality
from hybridlab.widgets.filter_explorer import FilterExplorer
from hybridlab.widgets.memory_load import MemoryLoad
from hybridlab.widgets.mixing_matrix import MixingMatrix
from hybridlab.widgets.pattern_builder import PatternBuilder
from hybridlab.widgets.recurrence import Recurrence, recurrence, weights_of
from hybridlab.widgets.state_scope import StateScope, scope
from hybridlab.widgets.taylor_softmax import TaylorSoftmax

__all__ = [
    "CacheRace",
    "Duality",
    "FilterExplorer",
    "MemoryLoad",
    "MixingMatrix",
    "PatternBuilder",
    "Recurrence",
    "StateScope",
    "TaylorSoftmax",
    "recurrence",
    "scope",
    "weights_of",
]
