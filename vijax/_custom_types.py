"""Names for types that many signatures share."""

from typing import TypeAlias

from jaxtyping import Array, Float, PRNGKeyArray, PyTree


Key: TypeAlias = PRNGKeyArray
Point: TypeAlias = Float[Array, " dim"]
Params: TypeAlias = dict[str, Array]
Data: TypeAlias = PyTree
