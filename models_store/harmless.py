"""Objects beside the weights that cannot run anything: torch's restricted unpickler gets a stand-in for each by name.

Nothing of the library that wrote them is imported or called. What is not named here stays refused, by name.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Mapping, Sized
from typing import Any, TypeVar

from torch import Tensor

from models_store import numpy_pickle
from models_store.errors import Unusable

DROPPED = (
    *(f"pathlib{local}.{name}" for local in ("", "._local") for name in ("PosixPath", "WindowsPath", "Path")),
    *(f"pathlib{local}.Pure{name}Path" for local in ("", "._local") for name in ("Posix", "Windows")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(
        f"builtins.{name}"
        for name in ("slice", "range", "frozenset", "list", "dict", "int", "float", "str", "tuple")
    ),
    "uuid.UUID",
    "decimal.Decimal",
    "fractions.Fraction",
    "typing.Any",
    "torch.torch_version.TorchVersion",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    *(f"omegaconf.nodes.{name}Node" for name in ("Any", "String", "Integer", "Float", "Boolean")),
)
DICTIONARIES = (
    "collections.defaultdict",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
NUMPY = {
    f"{module}.{name}": stand_in
    for (module, name), stand_in in numpy_pickle.NAMES.items()
    if module.startswith("numpy")
}
MAX_DEPTH = 8
MOST_ENTRIES = 2_000_000
_Held = TypeVar("_Held", bound=Sized)


class Dropped:
    """Stands for an object that is read and thrown away."""

    def __new__(cls, *_: object, **__: object) -> Dropped:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class DroppedList(list):
    """The same for what is appended to."""

    def __new__(cls, *_: object) -> DroppedList:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None: ...


class PlainDictionary:
    """Stands for a dictionary with other manners: becomes an ordered one."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def _no_attribute(*_: object) -> Dropped:
    """Stands for getattr, which mmengine's histories name their own methods by: nothing is looked up."""
    return Dropped()


class Allowed:
    """What the unpickler may name: ``names`` for ``torch.serialization.safe_globals``."""

    def __init__(self) -> None:
        self.stand_ins = {name: type(name.rpartition(".")[2], (Dropped,), {}) for name in DROPPED}
        self.names: list[Any] = [argparse.Namespace, (argparse.Namespace, "types.SimpleNamespace")]
        self.names += [(stand_in, name) for name, stand_in in self.stand_ins.items()]
        self.names += [(PlainDictionary, name) for name in DICTIONARIES]
        self.names += [(DroppedList, "collections.deque"), (_no_attribute, "builtins.getattr")]
        self.names += [(stand_in, name) for name, stand_in in NUMPY.items()]
        # Made by reconstruction, then filled: no file names it.
        self.names.append((numpy_pickle.Array, "detrank.array"))


def plain(loaded: object) -> tuple[object, tuple[str, ...]]:
    """(the same without stand-ins, notes): arrays become tensors, numpy's numbers numbers, the rest is left out.

    Raises Unusable for arrays that claim more than they hold, and ``too_large`` for lists that repeat one another without end.
    """
    walk = _Walk()
    made = walk.plain(loaded, 0)
    dropped = ", ".join(sorted(walk.kinds))
    return made, (f"objects beside the weights were dropped: {dropped}",) if dropped else ()


class _Walk:
    """One walk over a loaded file; it ends at as many entries as a file can need, for lists may hold one another again and again."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self._left = MOST_ENTRIES

    def plain(self, value: object, depth: int) -> Any:
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, numpy_pickle.Array):
            tensor = value.tensor()
            return tensor if tensor.dim() else tensor.item()
        if isinstance(value, Dropped | DroppedList | numpy_pickle.DType):
            self.kinds.add(type(value).__name__)
            return None
        if isinstance(value, argparse.Namespace):
            found = self._entries(vars(value))
            return argparse.Namespace(**{str(k): self.plain(v, depth + 1) for k, v in found.items()})
        if isinstance(value, Mapping):
            # A state dict's values are tensors already: nothing is copied.
            if all(isinstance(v, Tensor) for v in value.values()):
                return value
            if len(value) > numpy_pickle.MAX_ENTRIES:
                raise Unusable("too_large", f"a dictionary of {len(value)} entries")
            return {k: self.plain(v, depth + 1) for k, v in self._entries(value).items()}
        if isinstance(value, list | tuple) and depth < MAX_DEPTH:
            return [self.plain(v, depth + 1) for v in self._entries(value)]
        return value

    def _entries(self, held: _Held) -> _Held:
        self._left -= len(held)
        if self._left < 0:
            raise Unusable("too_large", f"lists and dictionaries of more than {MOST_ENTRIES:,} entries")
        return held
