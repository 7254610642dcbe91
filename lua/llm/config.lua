-- A configuration: defaults, profile, the user's table and the command line,
-- merged in that order, every key and value checked.
local fail = require "llm.fail"
local keys = require "llm.keys"
local nearest = require "llm.nearest"
local profile = require "llm.profile"
local schema = require "llm.schema"
local value = require "llm.value"

local config = {}

local function unknown(key, names, what)
  local near = nearest(key, names)
  fail.raise(what or "argument", "unknown key '%s'%s", key,
    near and "; did you mean '" .. near .. "'?" or "")
end

local function sorted(t)
  local names = {}
  for key in pairs(t) do names[#names + 1] = tostring(key) end
  table.sort(names)
  return names
end

-- A nested table as { path = value }, sections opened.
local function flatten(source, prefix, accept, names)
  local flat = {}
  for _, key in ipairs(sorted(source)) do
    local v = source[key]
    if v == nil then v = source[tonumber(key)] end
    local field = schema.find(key)
    if type(v) == "table" and accept.sections[key] then
      for inner, x in pairs(v) do
        local f = schema.by_path[key .. "." .. tostring(inner)]
        if not (f and accept.field(f)) then
          unknown(prefix .. key .. "." .. tostring(inner), names(key))
        end
        flat[f.path] = value.check(f, x)
      end
    elseif field and accept.field(field) then
      flat[field.path] = value.check(field, v)
    elseif not (accept.structures and schema.structures[key]) then
      unknown(prefix .. key, names())
    end
  end
  return flat
end

local function section_set(list)
  local set = {}
  for _, s in ipairs(list) do set[s] = true end
  return set
end

local SWEEP = { structures = true, sections = section_set(schema.sections),
  field = function(f) return f.where ~= "model" end }
local ROW = { sections = section_set { "train", "memory", "search" },
  field = function(f) return f.where ~= "sweep" end }

local function sweep_names(section)
  local names = schema.names(function(f)
    return SWEEP.field(f) and (not section or f.section == section)
  end)
  if not section then
    for key in pairs(schema.structures) do names[#names + 1] = key end
    table.sort(names)
  end
  return names
end

local function row_names(prefix)
  return function(section)
    local names = { prefix .. "name" }
    for _, n in ipairs(schema.names(function(f)
      return ROW.field(f) and (not section or f.section == section)
    end)) do
      names[#names + 1] = prefix .. n
    end
    return names
  end
end

-- One model row or matrix entry: { name =, values = { path = value } }.
local function read_row(row, list, index)
  if type(row) ~= "table" then
    fail.raise("argument", "%s[%d] is a %s, not a table", list, index,
      type(row))
  end
  local copy, name = {}, row.name
  for key, v in pairs(row) do if key ~= "name" then copy[key] = v end end
  local prefix = list .. "." .. tostring(name or index) .. "."
  local values = flatten(copy, prefix, ROW, row_names(prefix))
  if list == "models" and not name then
    name = ("%sd-%sL"):format(values.d_model, values.n_layers)
  end
  if type(name) ~= "string" or not name:find("^[%w][%w._+-]*$") then
    fail.raise("argument", "%s[%d]: name = %s: expected letters, digits, "
      .. "'.', '_', '+' or '-'", list, index, tostring(name))
  end
  return { name = name, values = values }
end

local function read_rows(rows, list)
  local out, seen = {}, {}
  for i, row in ipairs(rows) do
    out[i] = read_row(row, list, i)
    if seen[out[i].name] then
      fail.raise("argument", "%s has two entries named '%s'", list,
        out[i].name)
    end
    seen[out[i].name] = true
  end
  if #out == 0 then fail.raise("argument", "%s is empty", list) end
  return out
end

local function layer(into, source)
  for path, v in pairs(flatten(source, "", SWEEP, sweep_names)) do
    into.values[path] = v
  end
  if source.models then into.models = read_rows(source.models, "models") end
  if source.matrix then into.matrix = read_rows(source.matrix, "matrix") end
end

local function defaults()
  local values = {}
  for _, field in ipairs(schema.fields) do
    values[field.path] = field.default
  end
  return { values = values }
end

local FLAGS = { "--dry-run", "--fresh", "--force", "--json", "--retry" }

-- Command-line words as { flags = {["dry-run"] = true}, overrides = {{key,
-- text}…} }; raises on anything else.
function config.arguments(words)
  local out = { flags = {}, overrides = {} }
  for _, word in ipairs(words or {}) do
    local key, text = word:match("^([%w_.+-]-)=(.*)$")
    local flag
    for _, f in ipairs(FLAGS) do if f == word then flag = f:sub(3) end end
    if flag then
      out.flags[flag] = true
    elseif key and not word:find("^%-") then
      out.overrides[#out.overrides + 1] = { key, text }
    else
      keys.refuse(word, FLAGS)
    end
  end
  return out
end

local function names_of(rows)
  local names = {}
  for i, row in ipairs(rows) do names[i] = row.name end
  return names
end

-- models.small.d_ff=1024: the row and the rest of the key, or nil.
local function row_of(merged, key)
  local list, rest = key:match("^(m%w+)%.(.+)$")
  local rows = (list == "models" or list == "matrix") and merged[list]
  if not rows then return nil end
  for _, row in ipairs(rows) do
    if rest:sub(1, #row.name + 1) == row.name .. "." then
      return row, rest:sub(#row.name + 2), list
    end
  end
  local word = rest:match("^[^.]*")
  local near = nearest(word, names_of(rows))
  fail.raise("usage", "unknown key '%s': %s has no '%s'%s", key, list, word,
    near and "; did you mean '" .. near .. "'?" or "; it has "
      .. table.concat(names_of(rows), ", "))
end

local function override(merged, key, text)
  local row, rest, list = row_of(merged, key)
  local accept, into = SWEEP, merged.values
  local names = sweep_names
  if row then
    accept, into = ROW, row.values
    names = row_names(list .. "." .. row.name .. ".")
  end
  local field = schema.find(rest or key)
  if field and not row and field.where == "model" then
    fail.raise("usage", "'%s' is a key of one model: models.%s.%s=%s", key,
      merged.models[1].name, key, text)
  end
  if not (field and accept.field(field)) then unknown(key, names(), "usage") end
  local before = into[field.path]
  into[field.path] = value.check(field, value.from_text(field, text), "usage")
  return { key = row and key or field.path, before = before,
    after = into[field.path] }
end

local function chosen_profile(user, overrides, device)
  local name = user.profile or "auto"
  for _, o in ipairs(overrides) do if o[1] == "profile" then name = o[2] end end
  if name == "auto" then return device == "cuda" and "full" or "nano" end
  if type(profile[name]) ~= "table" or name == "names" then
    local near = nearest(tostring(name), profile.names)
    fail.raise("usage", "profile = \"%s\": expected nano | full | auto%s",
      tostring(name), near and "; did you mean '" .. near .. "'?" or "")
  end
  return name
end

-- The whole configuration. `user` is the script's table, `words` the command
-- line, `device` "cpu" or "cuda". Gives { values = {path = value}, models,
-- matrix = rows, profile, flags, taken = overrides with before and after }.
function config.resolve(user, words, device)
  local arguments = config.arguments(words)
  local name = chosen_profile(user, arguments.overrides, device)
  local merged = defaults()
  layer(merged, profile[name])
  local own = (user.profiles or {})[name]
  layer(merged, user)
  if own then layer(merged, own) end
  local taken = {}
  for _, o in ipairs(arguments.overrides) do
    taken[#taken + 1] = override(merged, o[1], o[2])
  end
  merged.values.profile, merged.profile = name, name
  merged.flags, merged.taken = arguments.flags, taken
  return merged
end

-- Values of one section ("train") as a plain table, or of none ("").
function config.section(values, section)
  local out = {}
  for _, field in ipairs(schema.fields) do
    if (field.section or "") == section then
      out[field.leaf] = values[field.path]
    end
  end
  return out
end

return config
