# SPDX-License-Identifier: MIT
"""Worker processes of bus/shm are killed and stopped at random moments under load: a short
share of what `cmake --build … -t shm_chaos` does (100 kills, 100 stops, noticed within 1 s)."""
import os
import subprocess
import sys

program = os.path.join(os.environ["LATHE_BUILD"], "tests", "e2e", "shm_host")
if not os.path.exists(program):
    sys.exit(77)
environment = dict(os.environ, LATHE_LOG="off")  # each death is a warning
sys.exit(subprocess.run([program, "5", "5"], timeout=500, env=environment).returncode)
