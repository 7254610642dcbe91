-- One value of a configuration: from the text of a command line, and checked
-- against its field of the schema.
local fail = require "llm.fail"
local nearest = require "llm.nearest"
local size = require "llm.size"

local value = {}

local function has(words, word)
  for _, w in ipairs(words or {}) do if w == word then return true end end
  return false
end

local function list_of(text)
  local list = {}
  for word in tostring(text):gmatch("[^,%s]+") do
    list[#list + 1] = math.tointeger(tonumber(word)) or word
  end
  return list
end

local BOOLEAN = { ["true"] = true, ["false"] = false, yes = true, no = false,
  on = true, off = false, ["1"] = true, ["0"] = false }

-- The value a command-line word stands for; the word itself when it is not of
-- the field's type, so that `check` refuses it with both named.
function value.from_text(field, text)
  if has(field.words, text) or (field.auto and text == "auto") then
    return text
  end
  if field.type == "boolean" and BOOLEAN[text] ~= nil then
    return BOOLEAN[text]
  end
  if field.type == "list" then return list_of(text) end
  if field.type == "integer" or field.type == "number" then
    local n = tonumber(text)
    return n and (field.type == "integer" and math.tointeger(n) or n) or text
  end
  return text
end

local function show(v)
  if type(v) == "string" then return '"' .. v .. '"' end
  if type(v) == "table" then return "a table" end
  return tostring(v)
end

local function wanted(field)
  local text = ({ integer = "an integer", number = "a number",
    boolean = "true or false", size = 'a size such as "24GB"',
    list = "a list of integers", string = "a string" })[field.type]
  if field.type == "string" and field.words then
    text = table.concat(field.words, " | ")
  elseif field.words then
    text = text .. ' or "' .. table.concat(field.words, '" or "') .. '"'
  end
  return field.auto and text .. ' or "auto"' or text
end

local function refuse(field, v, what)
  local hint = ""
  if type(v) == "string" and field.words then
    local near = nearest(v, field.words)
    hint = near and "; did you mean '" .. near .. "'?" or ""
  end
  fail.raise(what, "%s = %s: expected %s%s", field.path, show(v),
    wanted(field), hint)
end

local function is_list(v)
  if type(v) ~= "table" or #v == 0 then return false end
  for _, x in ipairs(v) do
    if not math.tointeger(x) then return false end
  end
  return true
end

local CHECKS = {
  integer = function(v) return math.tointeger(v) end,
  number = function(v)
    return type(v) == "number" and v == v and v ~= math.huge and v
  end,
  boolean = function(v) if type(v) == "boolean" then return v end end,
  string = function(v, field)
    return type(v) == "string" and not field.words and v
  end,
  size = function(v) return size.parse(v) and v end,
  list = function(v) return is_list(v) and v end,
}

-- `v` as the field's type (integers become integers); raises with the field,
-- what came and what was expected. `what` is the error's code.
function value.check(field, v, what)
  what = what or "argument"
  if type(v) == "string" and (has(field.words, v)
    or (field.auto and v == "auto")) then
    return v
  end
  local checked = CHECKS[field.type](v, field)
  if checked == nil or (checked == false and field.type ~= "boolean") then
    refuse(field, v, what)
  end
  local n = type(checked) == "number" and checked
  if n and ((field.least and n < field.least)
    or (field.most and n > field.most)) then
    local bounds = not field.most and "at least " .. field.least
      or not field.least and "at most " .. field.most
      or field.least .. " … " .. field.most
    fail.raise(what, "%s = %s: out of range, %s", field.path, show(v), bounds)
  end
  return checked
end

return value
