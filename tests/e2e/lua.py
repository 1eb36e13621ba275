#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every script in tests/e2e/lua is run by `lathe run` in a fresh folder and must end well."""
import os
import pathlib
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
failed = 0
for script in sorted((source / "tests/e2e/lua").glob("*.lua")):
    if script.name == "support.lua":
        continue
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([lathe, "run", "--quiet", str(script)], cwd=folder, capture_output=True, text=True, timeout=300,
                                env=dict(os.environ, LATHE_LOG="error"))  # killed workers are warned of
    ok = result.returncode == 0 and result.stderr == ""
    print(f"{'ok    ' if ok else 'FAILED'} {script.name}")
    if not ok:
        failed += 1
        print(f"  status {result.returncode}\n  {result.stderr.strip()}\n  {result.stdout.strip()[-500:]}")
sys.exit(1 if failed else 0)
