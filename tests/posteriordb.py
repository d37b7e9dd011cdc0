"""The database of posteriors with reference draws, where it is at hand."""

import importlib.util
import os
import pathlib
import sys


_usual = pathlib.Path(__file__).parents[2] / "shared" / "posteriordb"
ROOT = pathlib.Path(os.environ.get("POSTERIORDB", _usual))
NAMES = (
    sorted(path.stem for path in (ROOT / "posteriors").glob("*.json"))
    if ROOT.exists()
    else []
)


def module(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
