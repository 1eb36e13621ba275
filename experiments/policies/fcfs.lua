-- First come, first served: the twin of plugins/scheduler/fcfs.c.
-- SPDX-License-Identifier: MIT
return {
  name = "fcfs",
  promises = { "work_conserving", "no_starvation", "no_preemption" },
  key = function(r) return r.planned end, -- when it was to arrive, however late the driver was
}
