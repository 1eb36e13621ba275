-- Shortest remaining processing time: what is left of a job decides, and it climbs as it runs.
-- SPDX-License-Identifier: MIT
--
-- Schrage, "A proof of the optimality of the shortest remaining processing time discipline",
-- Operations Research 1968. Left are the positions that aren't in KV yet, and the foretold output
-- that hasn't come; an answer longer than foretold has nothing left.
return {
  name = "srpt",
  preemptive = true,
  dynamic = true,
  promises = { "work_conserving" },
  key = function(r)
    if r.predicted == 0 then return math.huge end
    return r.pending + math.max(r.predicted - r.output_tokens, 0)
  end,
}
