"""What can be measured: equivalence of forms and kernels, invariants of models, memory, time."""

from hybridlab.measure.bench import benchmark
from hybridlab.measure.equivalence import check_equivalence
from hybridlab.measure.invariants import check_invariants
from hybridlab.measure.memory import account
from hybridlab.measure.profile import profile_model

__all__ = ["account", "benchmark", "check_equivalence", "check_invariants", "profile_model"]
