-- Shortest job first: the twin of plugins/scheduler/sjf.c.
-- SPDX-License-Identifier: MIT
--
-- A job is its prompt and the output that was foretold; without a prediction it goes behind the
-- others. Whoever runs goes on, unless options = "preemptive=true".
return {
  name = "sjf",
  preemptive = options.preemptive or false,
  promises = { "work_conserving", not options.preemptive and "no_preemption" or nil },
  key = function(r)
    if r.predicted == 0 then return math.huge end
    return r.prompt_tokens + r.predicted
  end,
}
