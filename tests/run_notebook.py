"Run one notebook top to bottom, offline, in a process of its own: python tests/run_notebook.py nbs/NAME.ipynb"
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import block_sockets
    import fastprogress.fastprogress
    from nbdev.test import test_nb
    block_sockets()
    fastprogress.fastprogress.NO_BAR = True
    ok, seconds = test_nb(Path(sys.argv[1]), basepath=".", do_print=True)
    sys.exit(not ok)
