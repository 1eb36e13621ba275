-- SPDX-License-Identifier: MIT
-- Tables of a step's cost, as columns for lathe.calibrate and as lines of a cost profile:
--
--   rows_us     by the rows of the step (prompt, decode and padding together): the layers' products
--   outputs_us  by its rows that give a token: the vocabulary's product and the sampler
--   rest_us     between the knots of rows_us, by what the rows leave when divided by GROUP: kernels
--               compute so many rows at a time
--
-- A table is piecewise linear, so a combination of hat functions: 1 at its knot, 0 at the next ones. A knot
-- is kept only where steps stand nearer to it than to others, since what nobody measured would be 0.
local tables = {}

local GROUP <const>, ENOUGH <const> = 4, 3
-- Where kernels change (every count up to 16), then where a line will do.
local KNOTS <const> = {}
for at = 1, 16 do KNOTS[at] = at end
for _, at in ipairs { 20, 24, 28, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1536,
                      2048, 3072, 4096, 6144, 8192 } do KNOTS[#KNOTS + 1] = at end

local function rows_of(row) return row.prefill_tokens + row.decode_tokens + row.padding_tokens end
local function outputs_of(row) return row.outputs end

local function knots(rows, of)
  local near, kept = {}, {}
  for _, row in ipairs(rows) do
    local x, best = of(row), nil
    for _, at in ipairs(KNOTS) do
      if x > 0 and (not best or math.abs(at - x) < math.abs(best - x)) then best = at end
    end
    if best then near[best] = (near[best] or 0) + 1 end
  end
  for _, at in ipairs(KNOTS) do
    if (near[at] or 0) >= ENOUGH then kept[#kept + 1] = at end
  end
  return kept
end

-- The share of knot i at x: linear from (0, 0) before the first, on along the last piece after the last.
local function hat(list, i, x)
  local n <const> = #list
  if x <= 0 then return 0 end
  if n == 1 or x <= list[1] then return i == 1 and x / list[1] or 0 end
  local left = n - 1
  while left > 1 and x < list[left] do left = left - 1 end
  local share = (x - list[left]) / (list[left + 1] - list[left])
  return i == left and 1 - share or i == left + 1 and share or 0
end

-- Columns of these steps: { table =, at =, of = function(row) }.
function tables.columns(rows)
  local columns, exact = {}, {}
  for _, t in ipairs { { "rows_us", rows_of }, { "outputs_us", outputs_of } } do
    local list = knots(rows, t[2])
    for i, at in ipairs(list) do
      if t[2] == rows_of then exact[at] = true end
      columns[#columns + 1] = { table = t[1], at = at, of = function(row) return hat(list, i, t[2](row)) end }
    end
  end
  for left = 1, GROUP - 1 do
    columns[#columns + 1] = { table = "rest_us", at = left, of = function(row)
      return rows_of(row) % GROUP == left and not exact[rows_of(row)] and 1 or 0
    end }
  end
  return columns
end

-- A column's figure into the coefficients.
function tables.put(coefficients, column, us)
  local t = coefficients[column.table] or {}
  t[#t + 1] = { at = column.at, us = us }
  coefficients[column.table] = t
end

local function look_up(t, x)
  local list, us = {}, 0
  for i, knot in ipairs(t) do list[i] = knot.at end
  for i, knot in ipairs(t) do us = us + hat(list, i, x) * knot.us end
  return math.max(us, 0)
end

local function rest(c, n)
  for _, knot in ipairs(c.rows_us) do
    if knot.at == n then return 0 end
  end
  return n % GROUP > 0 and c.rest_us[n % GROUP].us or 0
end

-- What the tables say of a step.
function tables.predict(c, row)
  local n = rows_of(row)
  return look_up(c.rows_us, n) + rest(c, n) + (c.outputs_us and look_up(c.outputs_us, row.outputs) or 0)
end

function tables.write(file, coefficients)
  for _, name in ipairs { "rows_us", "rest_us", "outputs_us" } do
    local entries = {}
    for i, knot in ipairs(coefficients[name] or {}) do entries[i] = ("%d:%.6g"):format(knot.at, knot.us) end
    if #entries > 0 then file:write(name, " = ", table.concat(entries, ", "), "\n") end
  end
end

return tables
