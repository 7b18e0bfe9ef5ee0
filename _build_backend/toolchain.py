"""Whether this machine can compile the extension, told in one sentence if it cannot."""

import os
import shlex
import shutil
import sysconfig
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")


def choose_compiler() -> str:
    """Return the C++ compiler's command and name it in CXX, where torch and setuptools look.

    Raises SystemExit with one sentence if there is none, or if Python's headers are missing.
    """
    named = os.environ.get("CXX")
    candidates = (named,) if named else COMPILERS
    compiler = next((c for c in candidates if shutil.which(shlex.split(c)[0])), None)
    if compiler is None:
        raise SystemExit(
            "rnncells compiles its kernels, and no C++ compiler was found (looked for "
            f"{', '.join(candidates)}): install one, for example with 'apt install g++'."
        )
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise SystemExit(
            f"rnncells compiles against Python's headers, and {include} has none: install them, "
            "for example with 'apt install python3-dev'."
        )
    os.environ["CXX"] = compiler
    return compiler


if __name__ == "__main__":
    choose_compiler()
