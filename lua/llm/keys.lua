-- Keys of a script that is no sweep: declared once, read from the command
-- line, explained by --help, completed by shells.
--
--   local o = require("llm.keys").read {
--     { "port", "integer", 8501, "where it listens", { least = 1 } },
--   }
--
-- Fields are those of llm.schema: path, type, default, meaning, options; one
-- with hidden = true is between the script and its children.
local fail = require "llm.fail"
local host = require "host"
local nearest = require "llm.nearest"
local value = require "llm.value"

local keys = {}

-- A default or a value as --help and help() show it.
function keys.shown(v)
  if v == nil then return "none" end
  if type(v) == "table" then return table.concat(v, ",") end
  if v == "" then return '""' end
  if math.type(v) == "float" then return ("%.6g"):format(v) end
  return tostring(v)
end

local function field_of(f)
  local field = { path = f[1], leaf = f[1], type = f[2], default = f[3],
    doc = f[4] }
  for key, v in pairs(f[5] or {}) do field[key] = v end
  return field
end

local function names_of(fields)
  local names = {}
  for _, field in ipairs(fields) do
    if not field.hidden then names[#names + 1] = field.path end
  end
  return names
end

local function find(fields, key)
  for _, field in ipairs(fields) do
    if field.path == key then return field end
  end
  local near = nearest(key, names_of(fields))
  local names = table.concat(names_of(fields), ", ")
  fail.raise("usage", "unknown key '%s'%s", key, near
    and "; did you mean '" .. near .. "'?"
    or "; there is " .. (names == "" and "none" or names))
end

-- Is this run to explain the script rather than to do its work?
function keys.asked() return host.options.help == true end

-- Raise for a word that is no key=value, no flag and no plain word.
function keys.refuse(word, flags)
  local near = (word == "-h" or word == "-help") and "--help"
    or word:match "^%-+([%w_.]+=.*)$" or nearest(word, flags)
  fail.raise("usage", "unknown argument '%s'%s", word, near
    and "; did you mean '" .. near .. "'?"
    or " (options of a script are written key=value)")
end

local function refuse(word, about)
  local flags = {}
  for i, flag in ipairs(about.flags or {}) do flags[i] = flag[1] end
  keys.refuse(word, flags)
end

-- Values by key of the command line (`words`: host.options.args). `about` may
-- hold words = { { NAME, meaning }… }, the plain words it takes, given in
-- `rest`; flags = { { "--flag", meaning }… }, given in `flags`. Gives values,
-- rest, flags. Raises usage errors that name the key and what would be right.
-- On --help it explains the script and ends the program.
function keys.read(list, about, words)
  about = about or {}
  local fields, values, rest, flags = {}, {}, {}, {}
  for i, f in ipairs(list) do
    fields[i] = field_of(f)
    values[f[1]] = f[3]
  end
  if keys.asked() then
    local shown = {}
    for _, field in ipairs(fields) do
      if not field.hidden then shown[#shown + 1] = field end
    end
    require("llm.usage").explain { fields = shown, words = about.words,
      flags = about.flags }
    os.exit(0, true)
  end
  local known = {}
  for _, flag in ipairs(about.flags or {}) do known[flag[1]] = true end
  for _, word in ipairs(words or host.options.args or {}) do
    local key, text = word:match "^([%w_.]+)=(.*)$"
    if key then
      local field = find(fields, key)
      values[key] = value.check(field, value.from_text(field, text), "usage")
    elseif known[word] then
      flags[word:match "^%-*(.*)$"] = true
    elseif word:find "^%-." or #rest >= #(about.words or {}) then
      refuse(word, about)
    else
      rest[#rest + 1] = word
    end
  end
  return values, rest, flags
end

return keys
