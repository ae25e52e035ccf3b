"""hybridlab: the package under the course on hybrid language models.

`hybridlab.ops` holds the mechanisms, `hybridlab.layers` the mixers built on them, `hybridlab.models` the published
architectures, `hybridlab.measure` the checks and the memory account. `chapters/` explains all of them.
"""

__version__ = "0.1.0"
