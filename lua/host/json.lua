-- host.json: strict JSON in both directions. Integers stay integers, keys come
-- out in a repeatable order, numbers that are not finite become null, and what
-- is not JSON is refused with its position. Strings with escapes are left to
-- lua-cjson, in bounded pieces.
local cjson = require "cjson".new()

local json = {}
local MAX_TEXT = 256 * 2 ^ 20 -- bytes of one text
local MAX_STRING = 64 * 2 ^ 20 -- bytes of one string (lua-cjson: < 357 MB)
local MAX_DEPTH = 128

-- null is a value of its own, so that arrays keep their length.
json.null = setmetatable({}, {
  __name = "json.null",
  __tostring = function() return "null" end,
  __newindex = function() error("json.null cannot be changed", 2) end,
})

-- --- kinds of table ---

local ARRAY = { __name = "json.array" }
local OBJECT = { __name = "json.object" }
local keys_of = setmetatable({}, { __mode = "k" }) -- ordered object -> keys
local ORDERED = { __name = "json.ordered" }

-- A key that was not there before goes to the end.
function ORDERED.__newindex(t, key, value)
  local keys = keys_of[t]
  keys[#keys + 1] = key
  rawset(t, key, value)
end

-- The keys of an ordered object in their order, once each, those set to nil
-- left out.
local function live_keys(t)
  local live, seen = {}, {}
  for _, key in ipairs(keys_of[t]) do
    if rawget(t, key) ~= nil and not seen[key] then
      seen[key] = true
      live[#live + 1] = key
    end
  end
  return live
end

function ORDERED.__pairs(t)
  local keys, i = live_keys(t), 0
  return function()
    i = i + 1
    if keys[i] ~= nil then return keys[i], rawget(t, keys[i]) end
  end
end

-- Mark a table as an array, so that an empty one is [] and not {}.
function json.array(t) return setmetatable(t or {}, ARRAY) end

-- Mark a table as an object, so that one with whole keys is none the less {}.
function json.object(t) return setmetatable(t or {}, OBJECT) end

-- An object whose keys keep the order they were given or set in:
-- json.ordered{ {"name", 1}, {"size", 2} }.
function json.ordered(list)
  local t = {}
  for i, entry in ipairs(list or {}) do
    if type(entry) ~= "table" or type(entry[1]) ~= "string" then
      require("host").raise("argument",
        "json.ordered: entry %d is not {\"name\", value}", i)
    end
  end
  keys_of[t] = {}
  setmetatable(t, ORDERED)
  for _, entry in ipairs(list or {}) do t[entry[1]] = entry[2] end
  return t
end

-- --- encoding ---

local encode_value

local function fail(state, format, ...)
  local where = #state.path > 0 and table.concat(state.path, ".") or "value"
  error({ json = "cannot encode " .. where .. ": "
    .. string.format(format, ...) }, 0)
end

local function encode_string(state, s)
  if #s > MAX_STRING then fail(state, "a string of %d bytes", #s) end
  if not utf8.len(s) then fail(state, "a string is not UTF-8") end
  if not s:find('[%c"\\\127]') then return '"' .. s .. '"' end
  return (cjson.encode(s):gsub("\\/", "/"))
end

local function encode_float(x)
  if x ~= x or x == math.huge or x == -math.huge then return "null" end
  for digits = 15, 17 do
    local text = string.format("%." .. digits .. "g", x)
    if tonumber(text) == x then
      return text:find("[.e]") and text or text .. ".0" -- stays a float
    end
  end
end

-- Is this table to be written as an array? Raises on a mixture.
local function is_array(state, t)
  local meta = getmetatable(t)
  if meta == OBJECT or meta == ORDERED then return false end
  local whole, most, name = 0, 0, nil
  for key in next, t do
    if math.type(key) == "integer" and key > 0 then
      whole, most = whole + 1, math.max(most, key)
    else
      name = key
    end
  end
  if name ~= nil and (whole > 0 or meta == ARRAY) then
    fail(state, "an array has the key %s", tostring(name))
  end
  if whole ~= most then
    fail(state, "an array has holes (%d values, last at %d)", whole, most)
  end
  return whole > 0 or meta == ARRAY
end

local function by_name(a, b) return a < b end

-- {key, text of key} in the order they are written.
local function object_keys(state, t)
  local keys = {}
  if keys_of[t] then
    keys = live_keys(t)
  else
    for key in next, t do keys[#keys + 1] = key end
  end
  local text_of, texts = {}, {}
  for _, key in ipairs(keys) do
    local kind = type(key)
    if kind ~= "string" and math.type(key) ~= "integer" then
      fail(state, "a key is a %s", kind)
    end
    local text = tostring(key)
    if text_of[text] ~= nil then fail(state, "the key %s twice", text) end
    text_of[text] = key
    texts[#texts + 1] = text
  end
  if not keys_of[t] then table.sort(texts, by_name) end
  return texts, text_of
end

local function new_line(state, depth)
  if not state.indent then return end
  state[#state + 1] = "\n" .. string.rep(state.indent, depth)
end

local function encode_array(state, t, depth)
  local n = #t
  state[#state + 1] = "["
  for i = 1, n do
    if i > 1 then state[#state + 1] = "," end
    new_line(state, depth)
    state.path[depth] = "[" .. i .. "]"
    encode_value(state, t[i], depth)
  end
  state.path[depth] = nil
  if n > 0 then new_line(state, depth - 1) end
  state[#state + 1] = "]"
end

local function encode_object(state, t, depth)
  local texts, key_of = object_keys(state, t)
  state[#state + 1] = "{"
  for i, text in ipairs(texts) do
    if i > 1 then state[#state + 1] = "," end
    new_line(state, depth)
    state.path[depth] = text
    state[#state + 1] = encode_string(state, text)
      .. (state.indent and ": " or ":")
    encode_value(state, rawget(t, key_of[text]), depth)
  end
  state.path[depth] = nil
  if #texts > 0 then new_line(state, depth - 1) end
  state[#state + 1] = "}"
end

local function encode_table(state, t, depth)
  if t == json.null then
    state[#state + 1] = "null"
    return
  end
  if depth >= MAX_DEPTH or state.open[t] then
    fail(state, state.open[t] and "a table holds itself"
      or "deeper than %d levels", MAX_DEPTH)
  end
  state.open[t] = true
  if is_array(state, t) then
    encode_array(state, t, depth + 1)
  else
    encode_object(state, t, depth + 1)
  end
  state.open[t] = nil
end

function encode_value(state, value, depth)
  local kind = type(value)
  if kind == "table" then return encode_table(state, value, depth) end
  local text
  if kind == "string" then
    text = encode_string(state, value)
  elseif kind == "number" then
    text = math.type(value) == "integer" and string.format("%d", value)
      or encode_float(value)
  elseif kind == "boolean" then
    text = tostring(value)
  elseif kind == "nil" then
    text = "null"
  else
    fail(state, "a %s has no JSON form", kind)
  end
  state[#state + 1] = text
end

-- Text of a value; options.indent = 2 (spaces) or a string for many lines.
-- Raises what cannot be written: functions, tables that hold themselves, ….
function json.encode(value, options)
  local indent = options and options.indent
  if math.type(indent) == "integer" then
    if indent < 0 or indent > 40 then
      require "host".raise("argument",
        "json.encode: indent must be 0 to 40 spaces, got %d", indent)
    end
    indent = string.rep(" ", indent)
  end
  local state = { path = {}, open = {}, indent = indent }
  local ok, err = pcall(encode_value, state, value, 0)
  if ok then return table.concat(state) end
  local message = type(err) == "table" and err.json or tostring(err)
  require "host".raise("argument", "%s", message)
end

-- --- decoding ---

local decode_value

-- Line and column of a byte, for people.
local function refuse(text, at, format, ...)
  local line, start = 1, 1
  for pos in text:sub(1, at - 1):gmatch("()\n") do
    line, start = line + 1, pos + 1
  end
  error({ json = string.format("line %d, column %d: ", line, at - start + 1)
    .. string.format(format, ...) }, 0)
end

local function skip_space(text, at) return text:find("[^ \t\r\n]", at) end

-- What stands at a place where something else should.
local function seen(text, at)
  if not at or at > #text then return "the end" end
  local word = text:match("^[%w_.+-]+", at)
    or text:match("^" .. utf8.charpattern, at) or text:sub(at, at)
  return "'" .. word:sub(1, 20) .. "'"
end

local function unescape(text, from, to)
  local ok, value = pcall(cjson.decode, "[" .. text:sub(from, to) .. "]")
  if not ok then refuse(text, from, "a string with a bad escape") end
  return value[1]
end

-- The string that starts at the quote `at`, and where it goes on.
local function decode_string(text, at)
  local escapes = false
  local stop = text:find('["\\\0-\31]', at + 1)
  while stop and text:byte(stop) == 92 do
    escapes = true
    stop = text:find('["\\\0-\31]', stop + 2)
  end
  if not stop then refuse(text, at, "a string without an end") end
  if text:byte(stop) ~= 34 then
    refuse(text, stop, "a control character in a string")
  end
  if stop - at > MAX_STRING then refuse(text, at, "a string too long") end
  if escapes then return unescape(text, at, stop), stop + 1 end
  return text:sub(at + 1, stop - 1), stop + 1
end

local function decode_number(text, at)
  local _, stop = text:find("^-?%d+", at)
  if not stop then refuse(text, at, "expected a value, got %s", seen(text, at))
  end
  local whole = true
  local _, fraction = text:find("^%.%d+", stop + 1)
  local _, exponent = text:find("^[eE][+-]?%d+", (fraction or stop) + 1)
  if fraction or exponent then whole, stop = false, exponent or fraction end
  local word = text:sub(at, stop)
  if word:find("^-?0%d") or text:find("^[%w_.+-]", stop + 1) then
    refuse(text, at, "%s is no JSON number", seen(text, at))
  end
  local value = tonumber(word)
  if not whole then value = value + 0.0 end
  if value ~= value or value == math.huge or value == -math.huge then
    refuse(text, at, "%s is out of range", seen(text, at))
  end
  return value, stop + 1
end

local words = { ["true"] = true, ["false"] = false, ["null"] = json.null }

local function decode_word(text, at)
  local word = text:match("^%a[%w_]*", at)
  if not word or words[word] == nil then
    refuse(text, at, "expected a value, got %s", seen(text, at))
  end
  return words[word], at + #word
end

-- After a value: the place behind the comma, or nil and the place behind
-- `close`.
local function next_item(text, at, close)
  at = skip_space(text, at)
  local char = at and text:sub(at, at)
  if char == close then return nil, at + 1 end
  if char ~= "," then
    refuse(text, at or #text + 1, "expected ',' or '%s', got %s", close,
      seen(text, at))
  end
  return at + 1
end

local function decode_array(text, at, depth, ordered)
  local list, n = {}, 0
  local start = skip_space(text, at + 1)
  if start and text:byte(start) == 93 then
    return json.array(list), start + 1
  end
  at = at + 1
  repeat
    local value, after = decode_value(text, at, depth, ordered)
    n = n + 1
    list[n] = value
    at, after = next_item(text, after, "]")
    start = after
  until not at
  return json.array(list), start
end

local function decode_key(text, at)
  at = skip_space(text, at)
  if not at or text:byte(at) ~= 34 then
    refuse(text, at or #text + 1, "expected a key, got %s", seen(text, at))
  end
  local key, after = decode_string(text, at)
  local colon = skip_space(text, after)
  if not colon or text:byte(colon) ~= 58 then
    refuse(text, colon or #text + 1, "expected ':', got %s",
      seen(text, colon))
  end
  return key, colon + 1, at
end

local function decode_object(text, at, depth, ordered)
  local object = ordered and json.ordered() or {}
  local start = skip_space(text, at + 1)
  if start and text:byte(start) == 125 then return object, start + 1 end
  at = at + 1
  repeat
    local key, value, place, after
    key, after, place = decode_key(text, at)
    if rawget(object, key) ~= nil then
      refuse(text, place, "the key '%s' twice", key:sub(1, 40))
    end
    value, after = decode_value(text, after, depth, ordered)
    object[key] = value
    at, after = next_item(text, after, "}")
    start = after
  until not at
  return object, start
end

function decode_value(text, at, depth, ordered)
  at = skip_space(text, at)
  if not at then refuse(text, #text + 1, "expected a value, got the end") end
  local byte = text:byte(at)
  if byte == 34 then return decode_string(text, at) end
  if byte == 123 or byte == 91 then
    if depth >= MAX_DEPTH then
      refuse(text, at, "deeper than %d levels", MAX_DEPTH)
    end
    local decode = byte == 123 and decode_object or decode_array
    return decode(text, at, depth + 1, ordered)
  end
  if byte == 45 or byte >= 48 and byte <= 57 then
    return decode_number(text, at)
  end
  return decode_word(text, at)
end

local function decode_all(text, ordered)
  local ok, bad = utf8.len(text)
  if not ok then refuse(text, bad, "not UTF-8") end
  local value, after = decode_value(text, 1, 0, ordered)
  local rest = skip_space(text, after)
  if rest then refuse(text, rest, "%s after the value", seen(text, rest)) end
  return value
end

-- Value of a JSON text, or nil, message, "format". null is json.null; arrays
-- are marked as such; options.ordered keeps the order of keys.
function json.decode(text, options)
  if type(text) ~= "string" then
    require "host".raise("argument", "host.json.decode: expected a string, "
      .. "got %s", type(text))
  end
  if #text > MAX_TEXT then
    return nil, string.format("a text of %d bytes", #text), "format"
  end
  local ok, value = pcall(decode_all, text, options and options.ordered)
  if ok then return value end
  if type(value) ~= "table" or not value.json then error(value, 0) end
  return nil, value.json, "format"
end

-- For help(), completion and editors, as the C functions of `host` have it.
local registered = debug.getregistry()["llmhost.docs"]
if registered then
  registered["host.json"] = {
    { name = "encode", signature = "(value: any, options?: table): string",
      doc = "JSON text of a value, keys in a repeatable order, numbers that "
        .. "are not finite as null; raises for what has no JSON form.",
      options = { { name = "indent", type = "any", doc = "blanks of a level, "
        .. "or the text itself; one line without" } } },
    { name = "decode",
      signature = "(text: string, options?: table): any, string?, string?",
      doc = "The value of a JSON text, null as host.json.null; or nil, "
        .. "message, \"format\".",
      options = { { name = "ordered", type = "boolean",
        doc = "objects keep the order of their keys; false" } } },
    { name = "array", signature = "(t?: table): table",
      doc = "Mark a table as an array, so that an empty one is []." },
    { name = "object", signature = "(t?: table): table",
      doc = "Mark a table as an object, so that whole keys are names." },
    { name = "ordered", signature = "(list?: table): table",
      doc = "An object whose keys keep the order they were given in, from "
        .. "{ { key, value }… }." },
    { name = "null", signature = "table", doc = "JSON's null." },
  }
end

return json
