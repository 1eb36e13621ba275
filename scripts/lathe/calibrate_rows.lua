-- SPDX-License-Identifier: MIT
-- calibrate.rows(db, runs, wishes): rows of table `step`, as lathe.calibrate fits them.
--
-- Steps of these runs (nil: all of the database) as { duration_us, prefill_tokens, … }, in order.
-- wishes: `skip`: without the first so many of each run, in which memory is touched for the first
-- time; `gaps`: a duration goes on to the start of the step after it where that follows at once, as
-- a simulation's does. One row with something before it counts as decoding, as with model/sim.
-- `outputs` are the rows that gave a token; where a run has no rows of who was in its steps, its requests.
local check = require "lathe.check"

local AT_ONCE_NS <const> = 300000 -- longer gaps between steps are idleness

return function(db, runs, wishes)
  wishes = wishes or {}
  check.fields("calibrate.rows", wishes, { "skip", "gaps" })
  local ids = {}
  for i, id in ipairs(runs or {}) do ids[i] = ("%d"):format(id) end
  local function among(column) return #ids > 0 and ("and %s in (%s)"):format(column, table.concat(ids, ", ")) or "" end
  local rows = db:query(([[
    with member as (
      select m.run_id, m.step_id, m.phase = 'decode' or m.first_position + m.tokens >= q.prompt_tokens as output,
             m.phase = 'prefill' and m.tokens = 1 and m.first_position > 0 as single, m.first_position as past
      from step_request m join request q on q.run_id = m.run_id and q.id = m.request_id where 1 %s
    ), company as (
      select run_id, step_id, sum(output) as outputs, sum(single) as singles, sum(single * past) as singles_past
      from member group by run_id, step_id
    )
    select (s.end_ns - s.start_ns) / 1000.0 as duration_us, s.prefill_tokens - ifnull(c.singles, 0) as prefill_tokens,
           s.prefill_token_context - ifnull(c.singles_past, 0) as prefill_token_context,
           s.decode_tokens + ifnull(c.singles, 0) as decode_tokens,
           s.decode_context_tokens + ifnull(c.singles_past + c.singles, 0) as decode_context_tokens,
           s.padding_tokens, ifnull(c.outputs, s.requests) as outputs,
           lead(s.start_ns) over of_run - s.end_ns as gap_ns, row_number() over of_run as number
    from step s left join company c on c.run_id = s.run_id and c.step_id = s.id
    where s.end_ns > s.start_ns %s window of_run as (partition by s.run_id, s.replica order by s.id) order by s.run_id, s.id]])
    :format(among "m.run_id", among "s.run_id"))
  local kept = {}
  for _, row in ipairs(rows) do
    if wishes.gaps and row.gap_ns and row.gap_ns < AT_ONCE_NS then row.duration_us = row.duration_us + row.gap_ns / 1000 end
    if row.number > (wishes.skip or 0) then kept[#kept + 1] = row end
  end
  return kept
end
