"""Mends what a lazy import of NumPyro leaves undone."""

import sys


def attach_submodules() -> None:
    """Give each package of NumPyro its submodules as attributes.

    Once `arviz_base` has announced NumPyro as a lazy module, an import of
    `numpyro.distributions` executes it twice. The second copy finds its submodules
    imported already, and so never gets them as attributes, which NumPyro relies on.
    """
    for name, module in list(sys.modules.items()):
        package, _, child = name.rpartition(".")
        if name.startswith("numpyro.") and package in sys.modules:
            parent = sys.modules[package]
            if child not in vars(parent):
                setattr(parent, child, module)
