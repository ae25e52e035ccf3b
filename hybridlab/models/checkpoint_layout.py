"""What a kind of checkpoint looks like: how its tensors are called, and how its sizes are found out."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hybridlab.models.config import Config
from hybridlab.models.language_model import LanguageModel

LAYER = "{}"
EXPERT = "{expert}"
EXPERT_NUMBER = re.compile(r"\.experts\.(\d+)\.")


class Checkpoint:
    """The contents of a checkpoint, with errors that say what it lacks.

    Attributes:
        where: the path, for messages.
        tensors: by the names in the file.
        fields: of config.json; empty where there is none.
    """

    def __init__(self, where: str, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
        self.where, self.tensors, self.fields = where, tensors, fields

    @property
    def model_type(self) -> Any:
        """What transformers calls the architecture; None for Mistral's own files, whose field means something else."""
        return None if "dim" in self.fields else self.fields.get("model_type")

    def required(self, name: str) -> Any:
        """A field of config.json that must be there."""
        if self.fields.get(name) is None:
            raise ValueError(f"load_checkpoint: config.json lacks {name!r} (and no config was given): {self.where}")
        return self.fields[name]

    def optional(self, name: str, default: Any) -> Any:
        """A field of config.json, or its default where it is absent or null."""
        value = self.fields.get(name)
        return default if value is None else value

    def size(self, name: str, default: int | None = None) -> int:
        """A field of config.json that counts something; where it is absent or null, its default, if it has one."""
        value = self.required(name) if default is None else self.optional(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"load_checkpoint: config.json has {name} {value!r}, expected a positive int: {self.where}")
        return value

    def table(self, name: str) -> Mapping[str, Any]:
        """A field of config.json that holds fields; empty where it is absent or null."""
        value = self.optional(name, {})
        if not isinstance(value, Mapping):
            raise ValueError(f"load_checkpoint: config.json has {name} {value!r}, expected a table: {self.where}")
        return value

    def within(self, name: str) -> "Checkpoint":
        """The same checkpoint with the fields of one of its tables, which may be absent."""
        return Checkpoint(self.where, self.tensors, self.table(name))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """A field of config.json that is true or false; where it is absent or null, its default, if it has one."""
        value = self.required(name) if default is None else self.optional(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"load_checkpoint: config.json has {name} {value!r}, expected true or false: {self.where}")
        return value

    def expect(self, values: Mapping[str, Any]) -> None:
        """Refuses variants that a model does not have: fields that are there with other values than these."""
        for name, value in values.items():
            found = self.optional(name, value)
            if found != value:
                raise ValueError(f"load_checkpoint: config.json has {name} {found!r}; only {value!r} is known: {self.where}")

    def shape(self, name: str, *axes: str) -> tuple[int, ...]:
        """The shape of a tensor that must be there and must have these axes."""
        if name not in self.tensors:
            raise ValueError(f"load_checkpoint: missing tensor {name!r}: {self.where}")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != len(axes):
            raise ValueError(f"load_checkpoint: {name} must be ({', '.join(axes)}), got shape {shape}: {self.where}")
        return shape

    def count_layers(self, names: Collection[str]) -> int:
        """Layers in a file whose tensors have these names: one more than the largest number."""
        numbers = {name: layer_number(name) or 0 for name in self.tensors if generic(name) in names}
        last = max(numbers, key=lambda name: numbers[name])
        if numbers[last] >= len(self.tensors):
            raise ValueError(f"load_checkpoint: {last} has no layers before it: {self.where}")
        return numbers[last] + 1


def any_fields(fields: Mapping[str, Any]) -> bool:
    """What most layouts claim: whatever config.json says."""
    return True


@dataclass(frozen=True)
class Layout:
    """One kind of checkpoint of one architecture.

    Attributes:
        name: for messages.
        model: class that the checkpoint becomes.
        config: class of its configuration.
        names: names in the file -> names in the model; `{}` stands for the layer's number, `{expert}` for an expert's.
            Where the file stacks tensors along a first axis, the names of all of them, in its order.
        configure: finds out the sizes.
        ignored: ends of names that hold nothing to load.
        transposed: ends of names of the matrices whose two last axes the file has in the other order.
        kinds: letters of layers that differ -> the names that no other layers have.
        claims: whether a config.json may be one of this kind, where tensors of several kinds have the same names.
    """

    name: str
    model: Callable[..., LanguageModel]
    config: type[Config]
    names: Mapping[str, str | tuple[str, ...]]
    configure: Callable[[Checkpoint], Config]
    ignored: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    kinds: Mapping[str, Collection[str]] = field(default_factory=dict)
    claims: Callable[[Mapping[str, Any]], bool] = any_fields

    def expanded(self, layers: int, experts: int = 0) -> dict[str, tuple[str, ...]]:
        """Names in the file -> names in the model, for so many layers, of so many experts each."""
        pairs = {}
        for theirs, ours in self.names.items():
            stacked = (ours,) if isinstance(ours, str) else ours
            for layer in range(layers if LAYER in theirs else 1):
                for expert in range(experts if EXPERT in theirs else 1):
                    pairs[theirs.format(layer, expert=expert)] = tuple(name.format(layer, expert=expert) for name in stacked)
        return pairs

    def named(self, config: Config, experts: int = 0) -> dict[str, tuple[str, ...]]:
        """Names in a file of these sizes -> names in the model."""
        expanded = self.expanded(config.layers, experts)
        return {theirs: ours for theirs, ours in expanded.items() if self.belongs(theirs, config)}

    def belongs(self, name: str, config: Config) -> bool:
        """Whether a model of these sizes has what the file calls so: a layer has no names of other kinds of layers."""
        owners = {letter for letter, names in self.kinds.items() if generic(name) in names}
        return not owners or config.letters[layer_number(name) or 0] in owners

    def parts(self, name: str, tensor: Tensor, count: int) -> tuple[Tensor, ...]:
        """The tensors of the model that one of the file's holds."""
        if name.endswith(self.transposed) and tensor.ndim > 1:
            tensor = tensor.mT
        if count == 1:
            return (tensor,)
        if tensor.ndim == 0 or len(tensor) != count:
            raise ValueError(f"load_checkpoint: {name} must stack {count} tensors, got shape {tuple(tensor.shape)}")
        return tensor.unbind(0)

    def wanted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors without those that hold nothing to load."""
        return {name: tensor for name, tensor in tensors.items() if not name.endswith(self.ignored)}

    def without_copies(self, tensors: Mapping[str, Tensor], config: Config) -> Mapping[str, Tensor]:
        """The tensors without those that a file of these sizes may hold again, for layers that share them: here all."""
        return tensors

    def likeness(self, tensors: Mapping[str, Tensor]) -> float:
        """Names in common with a file, as a share of the names in either."""
        here, there = set(self.names), {generic(name) for name in self.wanted(tensors)}
        return len(here & there) / len(here | there)


def layer_number(name: str) -> int | None:
    """The first number between dots: 3 in "blocks.3.att.key.weight"."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def expert_count(names: Iterable[str]) -> int:
    """Experts of a layer, by the names of a model's or a file's tensors: one more than the largest number, or 0."""
    return max((int(number) + 1 for name in names for number in EXPERT_NUMBER.findall(name)), default=0)


def generic(name: str) -> str:
    """The name with `{}` for its layer, except for what only the first layer has (ln0), and `{expert}` for its expert."""
    number = layer_number(name)
    if number is None or ".ln0." in name or ".pre_ln." in name:
        return name
    return EXPERT_NUMBER.sub(f".experts.{EXPERT}.", name.replace(f".{number}.", f".{LAYER}.", 1))
