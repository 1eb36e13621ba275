#!/bin/sh
# SPDX-License-Identifier: MIT
# All Lua is clean under luacheck: no global by accident, nothing unused.
command -v luacheck >/dev/null || { echo "skipped: luacheck is absent"; exit 77; }
cd "$LATHE_SOURCE" && exec luacheck --std lua54 --quiet scripts experiments tests/e2e/lua
