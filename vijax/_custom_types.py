"""Names for types that many signatures share."""

from typing import Any, TypeAlias

from jaxtyping import Array, Float, PRNGKeyArray, PyTree


# Of JAX, or of NumPy where the host drives an algorithm.
AnyArray: TypeAlias = Any
Key: TypeAlias = PRNGKeyArray
Point: TypeAlias = Float[Array, " dim"]
Params: TypeAlias = dict[str, Array]
Data: TypeAlias = PyTree
