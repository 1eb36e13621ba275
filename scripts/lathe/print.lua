-- SPDX-License-Identifier: MIT
-- lathe.print(rows[, columns]): a table with aligned columns, numbers to the right.
--
-- rows: { { name = value, … }, … }, as r:query gives them. Columns are `columns`, or the
-- query's own order (rows.columns), or all names sorted. A column may be { "name", "title", "%.1f" }.
-- Returns the text instead of printing it when called as lathe.print.text.
local core = require "lathe.core"

local function columns_of(rows, wanted)
  local list = wanted or rows.columns
  if not list then
    local seen = {}
    list = {}
    for _, row in ipairs(rows) do
      for name in pairs(row) do
        if not seen[name] then
          seen[name] = true
          list[#list + 1] = name
        end
      end
    end
    table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
  end
  local columns = {}
  for i, column in ipairs(list) do
    if type(column) ~= "table" then column = { column } end
    columns[i] = { name = column[1], title = tostring(column[2] or column[1]), format = column[3] }
  end
  return columns
end

local function cell(value, format)
  if value == nil then return "" end
  if format and type(value) == "number" then return format:format(value) end
  if math.type(value) == "float" then
    if value == math.floor(value) and math.abs(value) < 1e15 then return ("%d"):format(value) end
    return (math.abs(value) >= 1000 and "%.0f" or "%.4g"):format(value)
  end
  return (tostring(value):gsub("[\r\n\t]", " "))
end

local function width(text) return utf8.len(text) or #text end

local function text_of(rows, wanted)
  if type(rows) ~= "table" then core.fail("lathe.print: takes an array of rows, not a " .. type(rows)) end
  local columns = columns_of(rows, wanted)
  local cells = {}
  for _, column in ipairs(columns) do column.width = width(column.title) end
  for i, row in ipairs(rows) do
    cells[i] = {}
    for j, column in ipairs(columns) do
      local value = row[column.name]
      cells[i][j] = cell(value, column.format)
      column.width = math.max(column.width, width(cells[i][j]))
      if type(value) == "number" then column.right = true end
    end
  end
  local lines = {}
  local function add(texts)
    local parts = {}
    for j, column in ipairs(columns) do
      local pad = (" "):rep(column.width - width(texts[j]))
      parts[j] = column.right and pad .. texts[j] or texts[j] .. pad
    end
    lines[#lines + 1] = (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  local titles, rules = {}, {}
  for j, column in ipairs(columns) do
    titles[j], rules[j] = column.title, ("─"):rep(column.width)
  end
  add(titles)
  add(rules)
  for _, texts in ipairs(cells) do add(texts) end
  return table.concat(lines, "\n")
end

return setmetatable({ text = text_of }, { __call = function(_, rows, columns) print(text_of(rows, columns)) end })
