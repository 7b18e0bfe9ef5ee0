"""The CUDA engine; importing it registers the operators' CUDA kernels too."""

runtime: str

def kernel_name(
    device: int,
    cell: str,
    dtype: str,
    steps: int,
    batch: int,
    units: int,
    projected: bool,
    backward: bool,
    varied: bool = False,
) -> str: ...
def kernel_name_for(
    architecture: int,
    multiprocessors: int,
    shared_bytes: int,
    cell: str,
    dtype: str,
    steps: int,
    batch: int,
    units: int,
    projected: bool,
    backward: bool,
    varied: bool = False,
) -> str: ...
def force_kernel(name: str) -> None: ...
