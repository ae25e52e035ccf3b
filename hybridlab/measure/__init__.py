"""What can be measured: equivalence of forms and kernels, invariants of models, memory, time."""

from hybridlab.measure.equivalence import check_equivalence

__all__ = ["check_equivalence"]
