-- SPDX-License-Identifier: MIT
-- The texts of the experiments on KV caches, as token ids, and requests made of them.
--
--   texts.read(model, folder, count, tokens) → { { name = "emma", ids = { … } }, … }
--   texts.given(ids)      a prompt of the first token, the rest as the answer that is given: so each token is a step of
--                         its own, and the policy evicts after each, as in decoding
--   texts.passkey(model, ids, length, number) → ids, the key as text: a sentence with a key among other text, asked for at the end
local lathe = require "lathe"

local texts = {}

-- tests/data/texts/README.md says where they come from
local NAMES <const> = { "emma", "opticks", "the_weir", "alice", "as_you_like_it", "devils_dictionary", "moby_dick",
                        "northanger_abbey", "paradise_lost", "ruth" }
texts.count = #NAMES

function texts.read(model, folder, count, tokens)
  local found = {}
  local beside = (lathe.script:match "^(.*/)" or "./")
  for i = 1, count do
    local path = folder .. "/" .. NAMES[i] .. ".txt"
    local file = io.open(path) or io.open(beside .. path)
    if not file then error(("no text %s: say with -- --folder where the texts lie"):format(path), 0) end
    local ids <const> = model:encode(file:read "a")
    file:close()
    if #ids < tokens then
      error(("%s has %d tokens, fewer than the %d asked for; say fewer with -- --tokens"):format(path, #ids, tokens), 0)
    end
    found[i] = { name = NAMES[i], ids = table.move(ids, 1, tokens, 1, {}) }
  end
  return found
end

function texts.given(ids)
  return { tokens = { ids[1] }, forced = table.move(ids, 2, #ids, 1, {}) }
end

function texts.passkey(model, ids, length, number)
  local key = ("%05d"):format((number * 48271 * 48271 + 12345) % 90000 + 10000)
  local told = model:encode((" The pass key is %s. Remember it. %s is the pass key."):format(key, key))
  local asked = model:encode " What is the pass key? The pass key is"
  local around = length - #told - #asked
  if around < 4 then error(("%d tokens are too few to hide a key in"):format(length), 0) end
  local before = around // 4 -- it lies in the first half: out of every window that is shorter than the half
  local prompt = table.move(ids, 1, before, 1, {})
  table.move(told, 1, #told, #prompt + 1, prompt)
  table.move(ids, before + 1, around, #prompt + 1, prompt)
  return table.move(asked, 1, #asked, #prompt + 1, prompt), key
end

return texts
