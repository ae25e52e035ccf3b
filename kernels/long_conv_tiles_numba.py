"""The heart of a long convolution on the CPU: neighbouring tokens of a vector of channels, in registers through all taps.

Written in LLVM's language, for the reasons that `tiles_numba` gives.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from hybridlab.kernels.tiles_numba import FUSED, VECTOR_BYTES

# Sums side by side: enough to hide the time that one takes; and terms a step: so many that a loaded row serves several sums.
SUMS, TERMS = 8, 4


def lanes(numbers: Any) -> int:
    """Numbers in a vector: known when the code is compiled, so that loops over them are single instructions."""
    return VECTOR_BYTES // numbers.itemsize


@overload(lanes, inline="always")
def _lanes(numbers):
    count = VECTOR_BYTES // (numbers.dtype.bitwidth // 8)
    return lambda numbers: count


def _add_sliding(_typing: Any, out: Any, a: Any, c: Any, row: Any, first: Any, last: Any) -> Any:
    """out[r] += sum over q in [first, last) of a[q] * c[r + q], for the SUMS rows r from `row` on.

    All three have rows of VECTOR_BYTES, one behind the other in memory. Nothing is checked.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _Sliding(context, builder, signature, args).add()
        return context.get_dummy_value()

    return types.void(out, a, c, types.intp, types.intp, types.intp), codegen


add_sliding: Any = intrinsic(_add_sliding)


class _Sliding:
    """The instructions of one `add_sliding`; addresses are integers."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        kinds = signature.args[:3]
        self.builder, (self.row, self.first, self.last) = builder, args[3:]
        number = context.get_value_type(kinds[0].dtype)
        self.vector = ir.VectorType(number, VECTOR_BYTES // context.get_abi_sizeof(number))
        self.word = self.row.type
        data = [context.make_array(kind)(context, builder, x).data for kind, x in zip(kinds, args, strict=False)]
        self.out, self.a, self.c = (builder.ptrtoint(x, self.word) for x in data)

    def add(self) -> None:
        """First TERMS terms at a time, then what is left one by one."""
        builder = self.builder
        place = self._down(self.out, self.row)
        sums = [self._load(place, i) for i in range(SUMS)]
        at, sums = self._loop(self.first, sums, TERMS)
        _, sums = self._loop(at, sums, 1)
        for i, total in enumerate(sums):
            builder.store(total, self._at(place, i)).align = VECTOR_BYTES

    def _loop(self, start: Any, sums: list[Any], terms: int) -> tuple[Any, list[Any]]:
        builder, before = self.builder, self.builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        q, totals = builder.phi(self.word), [builder.phi(self.vector) for _ in sums]
        end = builder.add(q, self.word(terms))
        builder.cbranch(builder.icmp_signed("<=", end, self.last), body, done)
        builder.position_at_end(body)
        results = self._terms(q, totals, terms)
        for phi, initial, result in zip([q, *totals], [start, *sums], [end, *results], strict=True):
            phi.add_incoming(initial, before)
            phi.add_incoming(result, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        return q, totals

    def _terms(self, q: Any, totals: list[Any], terms: int) -> list[Any]:
        """The sums with some more terms; each row is loaded once."""
        builder = self.builder
        factors, rows = self._down(self.a, q), self._down(self.c, builder.add(self.row, q))
        seen = [self._load(rows, i) for i in range(SUMS + terms - 1)]
        for term in range(terms):
            factor = self._load(factors, term)
            products = [builder.fmul(factor, seen[i + term], flags=FUSED) for i in range(SUMS)]
            totals = [builder.fadd(total, product, flags=FUSED) for total, product in zip(totals, products, strict=True)]
        return totals

    def _down(self, start: Any, rows: Any) -> Any:
        return self.builder.add(start, self.builder.mul(rows, self.word(VECTOR_BYTES)))

    def _at(self, place: Any, row: int) -> Any:
        return self.builder.inttoptr(self.builder.add(place, self.word(row * VECTOR_BYTES)), self.vector.as_pointer())

    def _load(self, place: Any, row: int) -> Any:
        vector = self.builder.load(self._at(place, row))
        vector.align = VECTOR_BYTES
        return vector
