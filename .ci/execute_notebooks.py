"""Execute every notebook in a folder; say which cell fails, and refuse kept outputs."""

import pathlib
import sys
import time

import nbformat
from nbclient import NotebookClient


def main(folder: str) -> None:
    for path in sorted(pathlib.Path(folder).glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        kept = [cell for cell in notebook.cells if cell.get("outputs")]
        if kept:
            sys.exit(f"{path} holds outputs: strip them before committing.")
        began = time.monotonic()
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=900, resources=resources).execute()
        print(f"{path}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1])
