-- Completion at the prompt: which names may stand at the end of a text. Names
-- are looked up, never computed: no function of the user's runs for it; what a
-- documented call returns is known from its signature.
local docs = require "llm.docs"
local host = require "host"
local lexer = require "llm.lexer"
local schema = require "llm.schema"
local show = require "llm.show"

local complete = {}

-- --- what an expression is -------------------------------------------------
-- Known as { value = … } or { class = "gpu.tensor" }, with `entry` where its
-- documentation is known.

local function of_value(value)
  if value == nil then return nil end
  local class = docs.class(value)
  if class then return { class = class } end
  local name = type(value) == "function" and docs.name_of(value)
  return { value = value, entry = name and docs.named(name) or nil }
end

-- A field of a table by raw access, or through __index tables.
local function field(t, name)
  for _ = 1, 8 do
    local v = rawget(t, name)
    if v ~= nil then return v end
    local meta = debug.getmetatable(t)
    t = meta and rawget(meta, "__index")
    if type(t) ~= "table" then return nil end
  end
end

local function member(known, name)
  if known and known.class then
    local entry = docs.method(known.class, name)
    return entry and { entry = entry,
      class = docs.is_field(entry) and docs.class_named(entry.signature)
        or nil }
  end
  local value = known and known.value
  if type(value) == "string" then value = string end
  if type(value) == "table" then return of_value(field(value, name)) end
end

local function called(known, argument)
  if known and known.value == require and argument then
    -- Loading the library's own sweep does nothing else.
    local ours = argument == "llm.sweep" and require(argument)
    return of_value(ours or package.loaded[argument])
  end
  local class = known and known.entry and docs.returns(known.entry)
  return class and { class = class } or nil
end

local CLOSE = { [")"] = "(", ["}"] = "{", ["]"] = "[" }

-- The token that opens what tokens[i] closes, or nil.
local function opener(tokens, i)
  local depth = 0
  for k = i, 1, -1 do
    local t = tokens[k].text
    if CLOSE[t] then depth = depth + 1 end
    if t == "(" or t == "{" or t == "[" then
      depth = depth - 1
      if depth == 0 then return k end
    end
  end
end

local known_at

-- The call or index whose last token is i.
local function known_suffix(tokens, i)
  local t = tokens[i]
  if t.kind == "string" then
    local callee = known_at(tokens, i - 1)
    return callee and called(callee, t.value) or { value = t.value }
  end
  local from = opener(tokens, i)
  if not from then return nil end
  local inner = known_at(tokens, from - 1)
  if t.text == "]" then
    return inner and inner.class == "gpu.tensor" and inner or nil
  end
  if t.text == ")" and not inner then return known_at(tokens, i - 1) end
  local one = i == from + 2 and tokens[from + 1]
  return called(inner, one and one.value)
end

-- What the expression that ends at tokens[i] is, or nil.
function known_at(tokens, i)
  local t = tokens[i]
  if not t then return nil end
  if t.kind == "string" or CLOSE[t.text] then return known_suffix(tokens, i) end
  if t.kind ~= "name" or not show.is_name(t.text) then return nil end
  local before = tokens[i - 1]
  if before and (before.text == "." or before.text == ":") then
    return member(known_at(tokens, i - 2), t.text)
  end
  return of_value(rawget(_G, t.text))
end

-- --- options of a constructor's table --------------------------------------

-- The innermost bracket that is open before token n, as its index.
local function enclosing(tokens, n)
  local depth = 0
  for k = n, 1, -1 do
    local t = tokens[k].text
    if CLOSE[t] then depth = depth + 1 end
    if t == "(" or t == "{" or t == "[" then
      if depth == 0 then return k end
      depth = depth - 1
    end
  end
end

-- Keys of a sweep's tables, by the names of the tables around.
local function sweep_options(path)
  local list = {}
  local function add(name, doc, words)
    list[#list + 1] = { name = name, doc = doc or "", words = words
      and table.concat(words, "|") }
  end
  local section = path[#path]
  local row = path[1] == "models" or path[1] == "matrix"
  for _, f in ipairs(schema.fields) do
    if not f.section and #path == 0 or row and not f.section
      and f.where ~= "sweep" and section ~= "models" and section ~= "matrix"
    then
      add(f.leaf, f.doc, f.words)
    elseif f.section and f.section == section then
      add(f.leaf, f.doc, f.words)
    end
  end
  if #path == 0 then
    for _, name in ipairs(docs.sorted(schema.structures)) do add(name) end
  end
  if #path == 0 or row and #path == 2 then
    for _, name in ipairs(schema.sections) do add(name) end
  end
  return list
end

-- The options that the table opened at tokens[brace] may hold, or nil.
local function options_at(tokens, brace, path)
  local before = tokens[brace - 1]
  if not before then return nil end
  if before.text == "=" then
    local outer = enclosing(tokens, brace - 1)
    local name = tokens[brace - 2]
    if not (outer and name and tokens[outer].text == "{") then return nil end
    return options_at(tokens, outer, { name.text, table.unpack(path) })
  end
  if before.text == "{" or before.text == "," then
    local outer = enclosing(tokens, brace - 1)
    if outer and tokens[outer].text == "{" then
      return options_at(tokens, outer, { "", table.unpack(path) })
    elseif outer and tokens[outer].text == "(" then
      brace = outer
    end
  elseif before.text == "(" then
    brace = brace - 1
  end
  local known = known_at(tokens, brace - 1)
  if not known then return nil end
  local sweep = package.loaded["llm.sweep"]
  if sweep and known.value == sweep then return sweep_options(path) end
  return #path == 0 and known.entry and known.entry.options or nil
end

-- --- candidates ------------------------------------------------------------

-- Collect into a set of names; those that begin with "_" only when asked for.
local function collector(partial)
  local names = {}
  return function(name, tail)
    if type(name) ~= "string" or name:sub(1, #partial) ~= partial then
      return
    end
    if name:find "^_" and partial == "" then return end
    names[name] = names[name] or tail or ""
  end, names
end

local function add_keys(t, add, only_functions)
  for _ = 1, 8 do
    if type(t) ~= "table" then return end
    for key, value in next, t do
      if show.is_name(key)
        and (not only_functions or type(value) == "function") then
        add(key)
      end
    end
    local meta = debug.getmetatable(t)
    t = meta and rawget(meta, "__index")
  end
end

local function add_members(known, add, colon)
  if not known then return end
  if known.class then
    for _, entry in ipairs(docs.methods(known.class)) do
      if not (colon and docs.is_field(entry)) then add(entry.name) end
    end
    for _, name in ipairs(docs.sorted(docs.live(known.class))) do
      add(name)
    end
  elseif type(known.value) == "string" then
    add_keys(string, add, colon)
  else
    add_keys(known.value, add, colon)
    local path = known.value == rawget(_G, "host") and "json"
    if path then add(path) end
  end
end

local KEYWORDS = { "and", "break", "do", "else", "elseif", "end", "false",
  "for", "function", "goto", "if", "in", "local", "nil", "not", "or",
  "repeat", "return", "then", "true", "until", "while" }

local function add_globals(add)
  add_keys(_G, add)
  for _, word in ipairs(KEYWORDS) do add(word) end
end

local function code_names(tokens, n, partial, add)
  local before = tokens[n]
  if before and (before.text == "." or before.text == ":") then
    return add_members(known_at(tokens, n - 1), add, before.text == ":")
  end
  local brace = enclosing(tokens, n)
  local at_key = before and (before.text == "{" or before.text == ","
    or before.text == ";")
  if at_key and brace and tokens[brace].text == "{" then
    local options = options_at(tokens, brace, {})
    local some = false
    for _, o in ipairs(options or {}) do
      add(o.name, " = ")
      some = some or o.name:sub(1, #partial) == partial
    end
    if some then return end -- what is meant there, rather than a global
  end
  add_globals(add)
end

-- --- inside a string -------------------------------------------------------

local function add_files(text, add)
  local folder = text:match "^(.*/)" or ""
  local place = folder == "" and "." or folder
  if place:sub(1, 2) == "~/" then
    place = (os.getenv "HOME" or "") .. place:sub(2)
  end
  for _, name in ipairs(host.file.list(place) or {}) do
    local shown = folder .. name
    if name:sub(1, 1) ~= "." or text:match "[^/]*$":sub(1, 1) == "." then
      if host.file.is_directory(place .. "/" .. name) then
        add(shown .. "/")
      else
        add(shown, "\"")
      end
    end
  end
end

local function add_modules(add)
  for _, name in ipairs(docs.sorted(package.loaded)) do add(name, "\"") end
  local root = host.options.root
  for _, name in ipairs(root and host.file.list(root .. "/lua/llm") or {}) do
    local stem = name:match "^([%w_]+)%.lua$"
    if stem then add("llm." .. stem, "\"") end
  end
end

-- The words that the option before the string may be.
local function add_words(tokens, n, add)
  local equal, name = tokens[n], tokens[n - 1]
  if not (equal and equal.text == "=" and name) then return false end
  local brace = enclosing(tokens, n)
  if not brace then return false end
  for _, o in ipairs(options_at(tokens, brace, {}) or {}) do
    if o.name == name.text and o.words then
      for word in o.words:gmatch "[^|]+" do add(word, "\"") end
      return true
    end
  end
  return false
end

local function string_names(tokens, n, text, add)
  local callee = tokens[n]
  if callee and callee.text == "(" then callee = tokens[n - 1] end
  if callee and callee.text == "require" then return add_modules(add) end
  if callee and callee.text == "help" then
    for _, e in ipairs(docs.all()) do add((e.name:gsub(":", ".")), "\"") end
    for _, path in ipairs(docs.paths()) do add(path) end
    for _, f in ipairs(schema.fields) do add(f.path, "\"") end
    return
  end
  if not add_words(tokens, n, add) then add_files(text, add) end
end

-- --- the two entrances -----------------------------------------------------

-- The names that may continue `text`: the part of it they replace, and a
-- sorted array of { name, tail }.
function complete.names(text)
  local tokens, open = lexer.tokens(text)
  if open and open.kind == "comment" then return "", {} end
  local n, last = #tokens, tokens[#tokens]
  local partial = ""
  if open then
    partial = open.text
  elseif last and last.kind == "name" and last.to == #text then
    partial, n = last.text, n - 1
  end
  local add, found = collector(partial)
  if open then
    string_names(tokens, n, partial, function(name, tail)
      add(name, tail == "\"" and open.quote or tail)
    end)
  elseif not (last and last.kind == "number" and last.to == #text) then
    code_names(tokens, n, partial, add)
  end
  local list = {}
  for _, name in ipairs(docs.sorted(found)) do
    list[#list + 1] = { name = name, tail = found[name] }
  end
  return partial, list
end

local function common_prefix(list)
  local first, last = list[1].name, list[#list].name
  local n = 0
  while n < #first and first:byte(n + 1) == last:byte(n + 1) do n = n + 1 end
  while n > 0 and (first:byte(n + 1) or 0) & 0xC0 == 0x80 do n = n - 1 end
  return first:sub(1, n)
end

local MOST = 300 -- names that are listed

-- Names in columns, as the lines below the prompt.
function complete.listing(list, width)
  local wide, names = 0, {}
  for i, c in ipairs(list) do
    if i > MOST then break end
    names[i] = c.name:match "([^/]+/?)$" or c.name
    wide = math.max(wide, (utf8.len(names[i]) or #names[i]) + 2)
  end
  local across = math.max(1, width // wide)
  local down = (#names + across - 1) // across
  local lines = {}
  for row = 1, down do
    local cells = {}
    for i = row, #names, down do
      cells[#cells + 1] = names[i] .. (" "):rep(wide
        - (utf8.len(names[i]) or #names[i]))
    end
    lines[row] = table.concat(cells):gsub("%s+$", "")
  end
  if #list > MOST then
    lines[#lines + 1] = ("… and %d more"):format(#list - MOST)
  end
  return table.concat(lines, "\n") .. "\n"
end

-- For the line editor: what Tab inserts after `line` (the text before the
-- cursor; `pending` are the lines of its chunk before it), and what it lists
-- when it can insert nothing; nils when there is nothing to complete.
function complete.edit(pending, line)
  local text = pending == "" and line or pending .. "\n" .. line
  local partial, list = complete.names(text)
  if #list == 0 then return nil, nil end
  local insert = common_prefix(list):sub(#partial + 1)
  if #list == 1 then return insert .. list[1].tail, nil end
  if insert ~= "" then return insert, nil end
  return nil, complete.listing(list, host.terminal.width())
end

return complete
