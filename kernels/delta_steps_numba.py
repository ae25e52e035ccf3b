"""One token of a recurrence whose state is corrected, and one token back, for Numba's kernels: the state is walked once.

Written in LLVM's language, so that the sums over rows stay in vector registers: from loops over so many arrays the compiler
makes code that loads and stores every sum at every row, or no vector code at all, because the arrays might overlap.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hybridlab.kernels.tiles_numba import FUSED, TILE_BYTES, VECTOR_BYTES

# Rows of `values`, V numbers each: what is read, what the next token will find, what is written along each of two keys.
OUT, FOUND, REPLACED, WRITTEN = range(4)
VALUES = 4
# Rows of `keys`, K numbers each, and below them their gradients.
DECAY, LOOK, READ, REPLACE, WRITE = range(5)
KEYS = 5


def _step(_typing: Any, state: Any, values: Any, rows: Any) -> Any:
    """S = decay * S + keys times what is written along them; OUT = read @ S; FOUND = look @ S.

    `rows` is (decay, look, read, key of REPLACED) or (decay, look, read, key of REPLACED, key of WRITTEN), K numbers each.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        decay, look, read, *keys = range(2, len(code.starts))
        with code.columns(TILE_BYTES) as block:
            start = builder.mul(block.index, code.word(TILE_BYTES))
            parts = [builder.add(start, code.word(n)) for n in range(0, TILE_BYTES, VECTOR_BYTES)]
            written = [[code.load(code.at(1, REPLACED + n, part)) for n in range(len(keys))] for part in parts]
            sums = [(code.zero(), code.zero()) for _ in parts]
            with code.rows() as loop:
                row = loop.index
                factors = [code.spread(x, 0, row) for x in (decay, look, read, *keys)]
                for part, new, (out, found) in zip(parts, written, sums, strict=True):
                    place = code.at(0, row, part)
                    s = builder.fmul(factors[0], code.load(place))
                    for key, value in zip(factors[3:], new, strict=True):
                        s = code.fused(key, value, s)
                    code.store(place, s)
                    code.add_to(found, factors[1], s)
                    code.add_to(out, factors[2], s)
            for part, (out, found) in zip(parts, sums, strict=True):
                code.store(code.at(1, OUT, part), builder.load(out))
                code.store(code.at(1, FOUND, part), builder.load(found))
        return context.get_dummy_value()

    return types.void(state, values, rows), codegen


def _back(_typing: Any, state: Any, grad: Any, keys: Any, partial: Any, sums: Any, rows: Any) -> Any:
    """From the gradient G of a state to that of the one before: G = decay * G + grad_found look + grad_out read.

    `state` and `grad` are (V, K): lanes run along K. DECAY and LOOK in `keys` and grad_found are of the token after the
    state, the rest is of the one before it. `rows` is (grad_found, grad_out, what is written along each key), V numbers
    each. The gradients of `keys` go KEYS rows below them, those of what is written into the rows of `sums`; `partial` is 0
    before and after.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        given, outcome, *written = range(5, len(code.starts))
        used = [DECAY, LOOK, READ, *range(REPLACE, REPLACE + len(written))]
        with code.columns(VECTOR_BYTES) as block:
            column = builder.mul(block.index, code.word(VECTOR_BYTES))
            token = {key: code.load(code.at(2, key, column)) for key in used}
            totals = {key: code.zero() for key in used}
            with code.rows() as loop:
                row = loop.index
                found, out = code.spread(given, 0, row), code.spread(outcome, 0, row)
                s, place = code.load(code.at(0, row, column)), code.at(1, row, column)
                g = code.load(place)
                code.add_to(totals[DECAY], g, s)
                code.add_to(totals[LOOK], found, s)
                code.add_to(totals[READ], out, s)
                g = code.fused(token[READ], out, code.fused(token[LOOK], found, builder.fmul(token[DECAY], g)))
                code.store(place, g)
                for n, (key, value) in enumerate(zip(used[REPLACE:], written, strict=True)):
                    code.add_to(totals[key], code.spread(value, 0, row), g)
                    lanes = code.at(3, row, code.word(n * VECTOR_BYTES))
                    code.store(lanes, code.fused(token[key], g, code.load(lanes)))
            for key in used:
                code.store(code.at(2, KEYS + key, column), builder.load(totals[key]))
        with code.rows() as loop:
            for n in range(len(written)):
                lanes = code.at(3, loop.index, code.word(n * VECTOR_BYTES))
                code.put(code.summed(code.load(lanes)), 4, n, loop.index)
                code.store(lanes, ir.Constant(code.kind, None))
        return context.get_dummy_value()

    return types.void(state, grad, keys, partial, sums, rows), codegen


step: Any = intrinsic(_step)
back: Any = intrinsic(_back)


class _Code:
    """Instructions on matrices whose rows have their numbers side by side; addresses are integers. Nothing is checked."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        kinds: list[Any] = []
        values: list[Any] = []
        for kind, value in zip(signature.args, args, strict=True):
            several = isinstance(kind, types.BaseTuple)
            kinds += kind.types if several else [kind]
            values += cgutils.unpack_tuple(builder, value) if several else [value]
        arrays = [context.make_array(kind)(context, builder, x) for kind, x in zip(kinds, values, strict=True)]
        self.builder, self.word = builder, context.get_value_type(types.intp)
        self.number = context.get_value_type(kinds[0].dtype)
        self.size = context.get_abi_sizeof(self.number)
        self.kind = ir.VectorType(self.number, VECTOR_BYTES // self.size)
        self.starts = [builder.ptrtoint(x.data, self.word) for x in arrays]
        self.steps = [cgutils.unpack_tuple(builder, x.strides)[0] for x in arrays]
        self.heights = [cgutils.unpack_tuple(builder, x.shape)[0] for x in arrays]

    def columns(self, size: int) -> Any:
        """A loop over blocks of the first matrix' columns, each of `size` bytes."""
        return cgutils.for_range(self.builder, self.builder.sdiv(self.steps[0], self.word(size)))

    def rows(self) -> Any:
        """A loop over the rows of the first matrix."""
        return cgutils.for_range(self.builder, self.heights[0])

    def at(self, matrix: int, row: Any, column: Any) -> Any:
        """The address of a row of a matrix, `column` bytes on."""
        row = self.word(row) if isinstance(row, int) else row
        start = self.builder.add(self.starts[matrix], self.builder.mul(row, self.steps[matrix]))
        return self.builder.add(start, column)

    def load(self, place: Any) -> Any:
        """The vector at an address."""
        vector = self.builder.load(self.builder.inttoptr(place, self.kind.as_pointer()))
        vector.align = self.size
        return vector

    def store(self, place: Any, vector: Any) -> None:
        """A vector to an address."""
        self.builder.store(vector, self.builder.inttoptr(place, self.kind.as_pointer())).align = self.size

    def number_at(self, matrix: int, row: int, column: Any) -> Any:
        """A pointer to one number of a matrix."""
        place = self.at(matrix, row, self.builder.mul(column, self.word(self.size)))
        return self.builder.inttoptr(place, self.number.as_pointer())

    def put(self, number: Any, matrix: int, row: int, column: Any) -> None:
        """A number into a matrix."""
        self.builder.store(number, self.number_at(matrix, row, column))

    def spread(self, matrix: int, row: int, column: Any) -> Any:
        """A vector of one number of a matrix."""
        number = self.builder.load(self.number_at(matrix, row, column))
        whole, index = ir.Constant(self.kind, ir.Undefined), ir.IntType(32)
        alone = self.builder.insert_element(whole, number, index(0))
        return self.builder.shuffle_vector(alone, whole, ir.Constant(ir.VectorType(index, self.kind.count), None))

    def fused(self, x: Any, y: Any, z: Any) -> Any:
        """x * y + z, rounded once where the machine can."""
        return self.builder.fadd(self.builder.fmul(x, y, flags=FUSED), z, flags=FUSED)

    def zero(self) -> Any:
        """A sum that starts at 0; it will be in a register."""
        total = cgutils.alloca_once(self.builder, self.kind)
        self.builder.store(ir.Constant(self.kind, None), total)
        return total

    def add_to(self, total: Any, x: Any, y: Any) -> None:
        """total += x * y."""
        self.builder.store(self.fused(x, y, self.builder.load(total)), total)

    def summed(self, vector: Any) -> Any:
        """The sum of a vector's lanes, in any order."""
        name = f"llvm.vector.reduce.fadd.v{self.kind.count}f{8 * self.size}"
        kind = ir.FunctionType(self.number, [self.number, self.kind])
        reduce = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(reduce, [ir.Constant(self.number, 0.0), vector], fastmath=("reassoc",))
