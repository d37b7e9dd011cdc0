"""Which data a PyMC model holds, which of them it sees in batches, and how long they are.

PyMC and PyTensor are imported inside, since they are optional.
"""

from typing import Any

import numpy as np

from .pymc_rewrite import batches_behind, is_small_constant, leaf_of, observed_nodes


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class PyMCData:
    """The data in the graph of a PyMC model.

    **Attributes:**

    - `arrays`: `{name: array}`.
    - `fixed`: names of data whose shapes are a part of the model.
    - `leaves`: `{variable of the graph: name}`.
    - `observed`: `{observed variable: name of its data}`.
    - `minibatches`: `{name: (length, batch size)}`.
    - `in_batches`: `{observed variable: names of its minibatches}`.
    - `dims`: `{variable of the graph: the dimension whose length it is}`.
    """

    def __init__(self, model: Any, fgraph: Any, memo: dict[Any, Any]):
        self.arrays: dict[str, np.ndarray] = {}
        self.fixed: set[str] = set()
        self.leaves: dict[Any, str] = {}
        self._given: dict[str, Any] = {}
        self._model = model
        self._find_dimensions(memo)
        self._find_observed(fgraph)
        self._find_minibatches(fgraph)
        self._find_other_data(fgraph)

    def _find_dimensions(self, memo: dict[Any, Any]) -> None:
        from pytensor.compile.sharedvalue import SharedVariable

        self.dims: dict[Any, str] = {}
        self._usual_lengths: dict[str, int] = {}
        for dim, length in self._model.dim_lengths.items():
            self._usual_lengths[dim] = int(length.eval(mode="FAST_COMPILE"))
            if isinstance(length, SharedVariable):
                self.dims[memo.get(length, length)] = dim

    def _find_observed(self, fgraph: Any) -> None:
        self.observed: dict[str, str] = {}
        for name, node in observed_nodes(fgraph.outputs).items():
            leaf = self._add(leaf_of(node.inputs[1]), name)
            if leaf is not None:
                self.observed[name] = leaf

    def _find_other_data(self, fgraph: Any) -> None:
        from pytensor.graph.basic import Constant

        for node in fgraph.toposort():
            for var in node.inputs:
                if var.owner is None and not is_small_constant(var):
                    kind = "constant" if isinstance(var, Constant) else "shared"
                    name = f"{kind}_{len(self.arrays)}"
                    self._add(var, str(var.name or name))

    def _find_minibatches(self, fgraph: Any) -> None:
        from pymc.data import MinibatchOp

        self.minibatches: dict[str, tuple[int, int]] = {}
        self._behind: dict[str, list[str]] = {}
        self._generators: dict[Any, str] = {}
        for node in fgraph.toposort():
            if isinstance(node.op, MinibatchOp):
                name = f"minibatch_{len(self.minibatches)}"
                leaves = [
                    self._add(leaf_of(var), f"{name}_{i}")
                    for i, var in enumerate(node.inputs[:-1])
                ]
                self._behind[name] = [leaf for leaf in leaves if leaf is not None]
                first: Any = node.inputs[0]
                length = first.shape[0].eval(mode="FAST_COMPILE")
                size = node.outputs[0].type.shape[0]
                self.minibatches[name] = int(length), size
                # Each has its own generator, by which copies of it are recognized.
                self._generators[node.inputs[-1]] = name
        self.in_batches: dict[str, list[str]] = {}
        for name, node in observed_nodes(fgraph.outputs).items():
            found = [self.name_of(node) for node in batches_behind([node.inputs[1]])]
            if found:
                self.in_batches[name] = found

    def _add(self, var: Any, name: str) -> str | None:
        """Make data of a variable, if it can be, and return their name."""
        from pytensor.compile.sharedvalue import SharedVariable
        from pytensor.tensor.type import TensorType

        if var is None or var.owner is not None or var in self.dims:
            return None
        if var in self.leaves or not isinstance(var.type, TensorType):
            return self.leaves.get(var)
        is_shared = isinstance(var, SharedVariable)
        if not is_shared and not hasattr(var, "data"):
            return None  # A value variable.
        given = np.asarray(var.get_value() if is_shared else var.data)
        if given.dtype.kind not in "fiub" or (given.dtype.kind == "b" and not is_shared):
            return None  # A mask of constants selects entries when a program is made.
        name = str(var.name) if is_shared and var.name else name
        twins = [n for n, old in self._given.items() if not is_shared and old is given]
        if not twins and name in self.arrays:
            name = f"{name}_{len(self.arrays)}"
        if not twins:
            # Constants may be arrays of the user's, who may write in them.
            self._given[name], self.arrays[name] = given, given.copy()
        self.leaves[var] = twins[0] if twins else name
        if not is_shared:
            self.fixed.add(self.leaves[var])
        return self.leaves[var]

    def name_of(self, node: Any) -> str:
        """The name of a minibatch, of which a node is a copy."""
        return self._generators[node.inputs[-1]]

    def length_of(self, minibatch: str, shapes: Shapes) -> int:
        """How many rows there are to take batches of, for data of some shapes."""
        lengths = [dict(shapes)[leaf][0] for leaf in self._behind[minibatch]]
        return lengths[0] if lengths else self.minibatches[minibatch][0]

    def lengths(self, shapes: Shapes, sizes: Shapes = ()) -> dict[str, int]:
        """The length of each dimension for data of some shapes, in batches of some
        sizes."""
        out = dict(self._usual_lengths)
        for name, dims in self._model.named_vars_to_dims.items():
            if name in dict(shapes) and name not in self.observed:
                out |= dict(zip(dims, dict(shapes)[name], strict=True))
            for minibatch in self.in_batches.get(name, ()):
                rows = dict(sizes).get(minibatch, (self.length_of(minibatch, shapes),))
                out[dims[0]] = rows[0]
        return {dim: length for dim, length in out.items() if dim is not None}

    def coords(self, shapes: Shapes) -> dict[str, list[Any]]:
        """The labels along each dimension; numbers where its length is another now."""
        out = {}
        for dim, length in self.lengths(shapes).items():
            labels = self._model.coords.get(dim) or ()
            out[dim] = list(labels if len(labels) == length else range(length))
        return out
