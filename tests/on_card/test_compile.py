from tests.test_compile import *  # noqa: F403
from tests.test_compile import _fresh  # noqa: F401

del test_cells  # noqa: F821  eager cells on the CPU go past the operators
