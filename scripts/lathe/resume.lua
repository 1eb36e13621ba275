-- SPDX-License-Identifier: MIT
-- Runs that are in the database already. A run's key is a sum over everything that decides what
-- it does (core/run_key.c); two runs with one key are one experiment done twice.
local core = require "lathe.core"

local resume = {}

local function there(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- Number of the last run that was done, by key; of one sweep, or of all.
function resume.done(path, sweep)
  local done = {}
  if not there(path) then return done end
  local db <close> = core.sql(path)
  if #db:query "select 1 from pragma_table_info('run') where name = 'key'" == 0 then return done end -- an older file
  local rows = db:query([[select key, max(id) as id from run
    where state = 'done' and key is not null and (?1 is null or sweep = ?1) group by key]], sweep)
  for _, row in ipairs(rows) do done[row.key] = row.id end
  return done
end

-- The handle of a description's earlier run, or nil.
function resume.earlier(description)
  local task <close> = core.task(description)
  local id = task:key() and resume.done(task:database())[task:key()]
  if not id then return nil end
  local handle = core.earlier(task:database(), id)
  if not core.quiet then io.stderr:write(("%s: run %d was done before\n"):format(handle.label, id)) end
  return handle
end

return resume
