"""The heart of a matrix product for Numba's kernels: one tile of the result, in vector registers through all terms.

Written in LLVM's language. From loops over arrays the compiler makes code that loads and stores the tile again every few
terms, and first checks, every time, that the arrays do not overlap: three times slower where rows have 64 numbers.
"""

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = llvmlite.binding.get_host_cpu_features()
# Widths of vector registers: with AVX-512, with AVX, without.
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
# A tile: rows, and vectors a row. Enough sums side by side to hide the time that one takes, few enough to stay in registers.
TILE_ROWS, TILE_VECTORS = 4, 2
TILE_BYTES = TILE_VECTORS * VECTOR_BYTES

# A product and the sum it goes into may be rounded once.
FUSED = ("contract",)


def _add_tile(_typing: Any, out: Any, a: Any, b: Any, m: Any, j: Any) -> Any:
    """out[m : m + TILE_ROWS, j : j + width] += a[those rows] @ b[:, those columns], where `width` numbers are TILE_BYTES.

    Rows of out and b have their numbers side by side. Nothing is checked.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile = _Tile(context, builder, signature, args)
        tile.add(tile.sums())
        return context.get_dummy_value()

    return types.void(out, a, b, types.intp, types.intp), codegen


add_tile: Any = intrinsic(_add_tile)


class _Tile:
    """The instructions of one `add_tile`; addresses are integers."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        kinds = signature.args[:3]
        arrays = [context.make_array(kind)(context, builder, x) for kind, x in zip(kinds, args, strict=False)]
        self.builder, self.row, self.column = builder, args[3], args[4]
        self.number = context.get_value_type(kinds[0].dtype)
        self.size = context.get_abi_sizeof(self.number)
        self.vector = ir.VectorType(self.number, VECTOR_BYTES // self.size)
        self.word = self.row.type
        self.starts = [builder.ptrtoint(x.data, self.word) for x in arrays]
        self.steps = [cgutils.unpack_tuple(builder, x.strides) for x in arrays]
        self.terms = cgutils.unpack_tuple(builder, arrays[2].shape)[0]

    def sums(self) -> list[list[Any]]:
        """A loop over the terms, the tile's sums in registers."""
        builder, (_, a, b), (_, (down, along), (step, _)) = self.builder, self.starts, self.steps
        first = (self.word(0), builder.add(a, builder.mul(self.row, down)), builder.add(b, self._bytes(self.column)))
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        n, factors, rows = walked = [builder.phi(self.word) for _ in first]
        sums = [[builder.phi(self.vector) for _ in range(TILE_VECTORS)] for _ in range(TILE_ROWS)]
        builder.cbranch(builder.icmp_signed("<", n, self.terms), body, done)
        builder.position_at_end(body)
        vectors = [self._load(rows, i) for i in range(TILE_VECTORS)]
        for i, row in enumerate(sums):
            factor = self._spread(builder.add(factors, builder.mul(down, self.word(i))))
            for total, vector in zip(row, vectors, strict=True):
                total.add_incoming(ir.Constant(self.vector, None), before)
                total.add_incoming(builder.fadd(total, builder.fmul(factor, vector, flags=FUSED), flags=FUSED), body)
        for phi, start, by in zip(walked, first, (self.word(1), along, step), strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(builder.add(phi, by), body)
        builder.branch(head)
        builder.position_at_end(done)
        return sums

    def add(self, sums: list[list[Any]]) -> None:
        """The sums go into `out`."""
        builder, step = self.builder, self.steps[0][0]
        corner = builder.add(self.starts[0], builder.add(builder.mul(self.row, step), self._bytes(self.column)))
        for i, row in enumerate(sums):
            place = builder.add(corner, builder.mul(step, self.word(i)))
            for n, total in enumerate(row):
                builder.store(builder.fadd(self._load(place, n), total), self._vector(place, n)).align = self.size

    def _bytes(self, numbers: Any) -> Any:
        return self.builder.mul(numbers, self.word(self.size))

    def _vector(self, place: Any, n: int) -> Any:
        """A pointer to the n-th vector from a place on."""
        return self.builder.inttoptr(self.builder.add(place, self.word(n * VECTOR_BYTES)), self.vector.as_pointer())

    def _load(self, place: Any, n: int) -> Any:
        vector = self.builder.load(self._vector(place, n))
        vector.align = self.size
        return vector

    def _spread(self, place: Any) -> Any:
        """A vector of one number."""
        number = self.builder.load(self.builder.inttoptr(place, self.number.as_pointer()))
        whole, index = ir.Constant(self.vector, ir.Undefined), ir.IntType(32)
        alone = self.builder.insert_element(whole, number, index(0))
        return self.builder.shuffle_vector(alone, whole, ir.Constant(ir.VectorType(index, self.vector.count), None))
