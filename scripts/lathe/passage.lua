-- SPDX-License-Identifier: MIT
-- Prompts of a wanted length: stretches of one passage of plain English, so that a model
-- sees words and not noise. Which stretch is drawn by (seed, request), never twice the same
-- way for two requests.
local core = require "lathe.core"

local PURPOSE_LENGTHS <const> = 3 -- enum lathe_random_purpose

local text = [[
The harbour had been rebuilt twice since the storm, and each time the engineers had moved the light a little further out.
Nobody now remembered why the first wall had been set at an angle to the current. An old drawing in the town hall showed two
lines crossing where the well should have been, and beside them, in a careful hand, the depth of the water at noon in spring.
The keeper wrote down the wind every hour. When the fog came in he counted the boats by their bells: four to the north, one
that answered late, and a heavy one that did not answer at all. He had a theory about the late one. Its owner, he said, liked
to be asked twice. In the evening the children brought him bread and questions. How far does the light go? As far as somebody
is looking. Why does it turn? Because a lamp that stands still might be a star, or a window, and a sailor must not have to
choose between them. What happens when it breaks? Then I ring the bell, and my sister on the other side rings hers, and
between the two of us we make a line that a ship can follow home. They wrote these answers in a notebook with a green cover.
Years later one of them became a surveyor and measured the angle of the first wall again. It pointed, within a degree, at the
place where the sun goes down on the shortest day of the year. She sent the figure to the town hall without a comment, and
someone added it to the drawing, in pencil, under the depth of the water. The market opened at six with fish, onions, rope and
second-hand clocks. A man who repaired radios explained to anyone who stopped that every machine has one part which is there
only to protect another, and that you learn most about a machine by finding that part first. A woman bought three lemons and
told him that kitchens were the same. Behind them the tide table had been changed for the week, and the numbers, as always, did
not quite repeat. On the hill the new school had a room with a map that covered the floor. Pupils walked along the rivers in
their socks, naming the bridges, and were told to stop wherever they thought a city ought to be. Mostly there was one already.
]]

local encoded = setmetatable({}, { __mode = "k" }) -- model → ids

local passage = { text = text }

-- `count` ids of `model`, from a place that (seed, number) draws; the passage wraps around.
function passage.tokens(model, count, seed, number)
  if math.type(count) ~= "integer" or count < 1 then
    core.fail(("lathe.run: request %d: \"prompt_tokens\" should be a whole number from 1, not %s"):format(number, tostring(count)))
  end
  if type(model) ~= "userdata" then core.fail('lathe.run: "model" should be a model, as lathe.model makes') end
  local ids = encoded[model]
  if not ids then
    ids = model:encode(text)
    encoded[model] = ids
  end
  local from = math.floor(core.random_unit(seed, PURPOSE_LENGTHS, number, 0xFFFFFFFF) * #ids)
  local tokens = {}
  for i = 1, count do tokens[i] = ids[(from + i - 1) % #ids + 1] end
  return tokens
end

-- A request may say how many tokens its prompt has instead of what it says: it then gets a
-- stretch of the passage, from a place that its number draws, so that no two share a prefix.
function passage.fill(description)
  if description.clock == "virtual" then return description end -- lengths are enough
  local workload = description.workload
  local requests = type(workload) == "table" and (workload.requests or workload)
  if type(requests) ~= "table" then return description end
  local filled, changed = {}, false
  for i, request in ipairs(requests) do
    filled[i] = request
    if type(request) == "table" and request.prompt_tokens then
      local copy = {}
      for k, v in pairs(request) do copy[k] = v end
      copy.prompt_tokens = nil
      copy.tokens = passage.tokens(description.model, request.prompt_tokens, description.seed or 1, i)
      filled[i], changed = copy, true
    end
  end
  if not changed then return description end
  local whole = {}
  if workload.requests then
    for k, v in pairs(workload) do whole[k] = v end
    whole.requests = filled
  else
    whole = filled
  end
  local result = {}
  for k, v in pairs(description) do result[k] = v end
  result.workload = whole
  return result
end

return passage
