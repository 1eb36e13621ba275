-- SPDX-License-Identifier: MIT
std = "lua54"
max_line_length = 140
files["tests"] = { max_line_length = 160 }
files["experiments/policies"] = { read_globals = { "options" } } -- what the scheduler hands to a policy
