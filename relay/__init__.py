"""The relay. Its processes fork, so they have no threads: numpy's are switched off before anything here imports it."""

import os

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
