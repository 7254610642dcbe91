-- The words after a script's name: positional ones and key=value, read by a
-- list of options. For scripts that are no sweeps.
local host = require "host"
local nearest = require "llm.nearest"

local words = {}

local BOOLEAN = { ["true"] = true, ["false"] = false, yes = true, no = false,
  on = true, off = false, ["1"] = true, ["0"] = false }

local READ = {
  string = function(text) return text end,
  integer = function(text) return math.tointeger(tonumber(text)) end,
  number = function(text) return tonumber(text) end,
  boolean = function(text) return BOOLEAN[text] end,
}

local WANTED = { string = "text", integer = "a whole number",
  number = "a number", boolean = "true or false" }

local function refuse(who, key, text, wanted)
  host.raise("usage", "%s: %s=%s: expected %s", who, key, text, wanted)
end

-- `allowed`: nothing, a least number, or a list of words.
local function check(who, option, text)
  local key, kind, allowed = option[1], option[2], option[4]
  local v = READ[kind](text)
  if v == nil or v ~= v then refuse(who, key, text, WANTED[kind]) end
  if type(allowed) == "number" and v < allowed then
    refuse(who, key, text, WANTED[kind] .. " from " .. allowed)
  elseif type(allowed) == "table" then
    for _, word in ipairs(allowed) do if v == word then return v end end
    refuse(who, key, text, table.concat(allowed, " or "))
  end
  return v
end

local function find(who, options, key)
  local names = {}
  for i, option in ipairs(options) do
    if option[1] == key then return option end
    names[i] = option[1]
  end
  local near = nearest(key, names)
  host.raise("usage", "%s: unknown key '%s'%s", who, key, near
    and "; did you mean '" .. near .. "'?" or "; there are "
    .. table.concat(names, "=, ") .. "=")
end

-- Say what the script takes, and end the program: its heading explains.
function words.explain(options, most)
  local fields = {}
  for i, option in ipairs(options) do
    fields[i] = { path = option[1], type = option[2], default = option[3],
      words = type(option[4]) == "table" and option[4] or nil, doc = "" }
  end
  require("llm.usage").explain { fields = fields, spoken = true,
    words = most > 0 and { { "WORD …", "see above" } } or nil }
  os.exit(0, true)
end

-- options: a list of { key, type, default, least or words }; types string,
-- integer, number, boolean. Gives { key = value } and the words without '=',
-- of which there may be `most`.
function words.read(who, options, most)
  local o, rest = {}, {}
  if host.options.help then words.explain(options, most) end
  for _, option in ipairs(options) do o[option[1]] = option[3] end
  for _, word in ipairs(host.options.args or {}) do
    local key, text = word:match "^([%w_]+)=(.*)$"
    if key then
      o[key] = check(who, find(who, options, key), text)
    else
      rest[#rest + 1] = word
      if #rest > most then
        host.raise("usage", "%s: '%s' is one word too many%s", who, word,
          " (options are written key=value)")
      end
    end
  end
  return o, rest
end

return words
