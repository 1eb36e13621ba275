-- SPDX-License-Identifier: MIT
-- Non-negative least squares (Lawson and Hanson 1974, chapter 23), on normal equations:
-- nnls(G, h) is the x ≥ 0 that minimises x'Gx − 2h'x. G has a diagonal of ones (columns scaled to
-- norm 1), or zeros for absent columns; a column that depends on those before it stays 0.

-- G x = h over the columns in `set`, by elimination with pivots; nil when they depend on each other.
local function solve(G, h, set)
  local N <const>, list = #h, {}
  for j = 1, N do if set[j] then list[#list + 1] = j end end
  local m = {}
  for r, i in ipairs(list) do
    m[r] = { [#list + 1] = h[i] }
    for c, j in ipairs(list) do m[r][c] = G[i][j] end
  end
  for c = 1, #list do
    local best = c
    for r = c + 1, #list do if math.abs(m[r][c]) > math.abs(m[best][c]) then best = r end end
    if math.abs(m[best][c]) < 1e-10 then return nil end
    m[c], m[best] = m[best], m[c]
    for r = 1, #list do
      local f = r ~= c and m[r][c] / m[c][c] or 0
      if f ~= 0 then for k = c, #list + 1 do m[r][k] = m[r][k] - f * m[c][k] end end
    end
  end
  local x = {}
  for j = 1, N do x[j] = 0 end
  for r, j in ipairs(list) do x[j] = m[r][#list + 1] / m[r][r] end
  return x
end

return function(G, h)
  local N <const> = #h
  local x, set, barred = {}, {}, {}
  for j = 1, N do x[j], barred[j] = 0, G[j][j] == 0 end
  local scale = 0
  for j = 1, N do scale = math.max(scale, math.abs(h[j])) end
  for _ = 1, 10 * N do -- each round adds the column that helps most
    local best, slope = nil, 1e-9 * scale
    for j = 1, N do
      local w = h[j]
      for k = 1, N do w = w - G[j][k] * x[k] end
      if not set[j] and not barred[j] and w > slope then best, slope = j, w end
    end
    if not best then break end
    set[best] = true
    while true do -- and those that would become negative leave, one by one
      local s = solve(G, h, set)
      if not s then
        set[best], barred[best] = nil, true
        break
      end
      local alpha, leaves = 1, nil
      for j = 1, N do
        if set[j] and s[j] <= 0 and x[j] / (x[j] - s[j]) < alpha then alpha, leaves = x[j] / (x[j] - s[j]), j end
      end
      for j = 1, N do x[j] = x[j] + alpha * (s[j] - x[j]) end
      if not leaves then break end
      x[leaves], set[leaves] = 0, nil
    end
  end
  return x
end
