-- help(): the documentation of functions, methods, modules and configuration
-- keys, as text.
--
--   help()   help(gpu.nn.linear)   help "gpu.nn.linear"   help "train.lr"
local docs = require "llm.docs"
local host = require "host"
local schema = require "llm.schema"

local help = {}

local WIDTH = 78

-- Text broken at blanks, every line after the first indented.
local function wrap(text, indent)
  local lines, line = {}, ""
  for word in text:gmatch "%S+" do
    local room = WIDTH - (#lines > 0 and #indent or 0)
    if line ~= "" and utf8.len(line) + 1 + utf8.len(word) > room then
      lines[#lines + 1], line = line, word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. indent)
end

local function sentence(text) return (text:gsub("%s+", " ")) end

local function option_type(o)
  return o.words or o.type == "any" and "" or o.type
end

local function options_text(list)
  local out, wide = {}, 0
  for _, o in ipairs(list) do
    wide = math.max(wide, #o.name + 1 + #option_type(o))
  end
  wide = math.min(wide, 34)
  for _, o in ipairs(list) do
    local left = (o.name .. " " .. option_type(o)):gsub("%s+$", "")
    out[#out + 1] = wrap(("  %s%s  %s"):format(left,
      ("\1"):rep(wide - #left), o.doc), (" "):rep(wide + 4))
      :gsub("^", "  "):gsub("\1", " ")
  end
  return table.concat(out, "\n")
end

-- The text about one function, method or field.
function help.entry(name, entry)
  if docs.is_field(entry) then
    return wrap(("%s: %s"):format(name, entry.signature), "  ") .. "\n"
      .. wrap("\1\1" .. sentence(entry.doc), "  "):gsub("\1", " ")
  end
  local text = wrap(name .. entry.signature, "    ") .. "\n  "
    .. wrap(sentence(entry.doc), "  ")
  if entry.options then
    text = text .. "\noptions:\n" .. options_text(entry.options)
  end
  return text
end

local function list_text(list)
  local out, wide = {}, 0
  for _, e in ipairs(list) do wide = math.max(wide, #e.name) end
  table.sort(list, function(a, b) return a.name < b.name end)
  for _, e in ipairs(list) do
    local line = ("%s%s %s"):format(e.name, ("\1"):rep(wide - #e.name + 1),
      sentence(e.doc))
    out[#out + 1] = "  " .. wrap(line, (" "):rep(wide + 4)):gsub("\1", " ")
  end
  return table.concat(out, "\n")
end

-- Sub-modules and classes right below a path.
local function below(path)
  local out = {}
  for _, other in ipairs(docs.paths()) do
    local leaf = other:match("^" .. path:gsub("%.", "%%.") .. "%.([^.]+)$")
    if leaf then out[#out + 1] = other end
  end
  return out
end

local function module_text(path)
  local parts = { path }
  local functions, methods = docs.functions(path), docs.methods(path)
  if #functions > 0 then parts[#parts + 1] = list_text(functions) end
  if #methods > 0 then
    parts[#parts + 1] = "methods and fields of an object:"
    parts[#parts + 1] = list_text(methods)
  end
  local more = below(path)
  if #more > 0 then
    parts[#parts + 1] = wrap("more: help \"" .. table.concat(more,
      "\", help \"") .. "\"", "  ")
  end
  return table.concat(parts, "\n")
end

local function key_text(field)
  local default = require("llm.keys").shown(field.default)
  local unit = field.words and " (" .. table.concat(field.words, " | ") .. ")"
    or ""
  return ("%s: %s%s, default %s\n  %s"):format(field.path, field.type, unit,
    default, field.doc)
end

local OVERVIEW = [[
gpu computes, host does everything around it. Try:
  t = gpu.randn{3, 4, seed = 1}     a tensor; t prints shape, values, range
  t:matmul(t:transpose())           methods: help(t)
  q = gpu.quant.nf4(t)              4-bit weights; gpu.quant.error(t, q)
  m = gpu.nn.linear{4, 8}           layers: help(gpu.nn); m(t) runs one
  s = require("llm.sweep"){…}       a sweep: s:plan(), s:run()
help(x) explains a function, method, module or object, help "train.lr" a key
of a configuration, help "matmul" finds a name. Tab completes names, options
and files; Ctrl-R searches what was typed before; Ctrl-C stops what runs.
modules and classes:
]]

local function overview()
  return OVERVIEW .. "  " .. wrap(table.concat(docs.paths(), " "), "  ")
end

-- Names that end in `word`, or contain it.
local function search(word)
  local exact, part = {}, {}
  for _, e in ipairs(docs.all()) do
    if e.leaf == word then
      exact[#exact + 1] = e
    elseif #word > 2 and e.name:find(word, 1, true) then
      part[#part + 1] = e
    end
  end
  return #exact > 0 and exact or part
end

local function unknown(word)
  local names = schema.names()
  for _, e in ipairs(docs.all()) do
    names[#names + 1], names[#names + 2] = e.name, e.leaf
  end
  local near = host.nearest(word, names)
  return ("nothing is documented as '%s'%s"):format(word, near
    and "; did you mean '" .. near .. "'?" or "")
end

local function named(word)
  local entry, kind, name = docs.named(word)
  if entry then
    local object = docs.registered()[name] and module_text(name)
    return help.entry(name, entry) .. (object and "\n" .. object or "")
  end
  if kind then return module_text(name) end
  local found, field = search(word), schema.find(word)
  if field and #found == 0 or schema.by_path[word] then
    return key_text(field)
  end
  if #found == 0 then return unknown(word) end
  if #found == 1 then return help.entry(found[1].name, found[1].entry) end
  local lines = {}
  for i, e in ipairs(found) do
    if i > 30 then
      lines[i] = ("… and %d more"):format(#found - 30)
      break
    end
    lines[i] = { name = e.name, doc = e.entry.doc }
  end
  local rest = type(lines[#lines]) == "string" and table.remove(lines)
  return list_text(lines) .. (rest and "\n  " .. rest or "")
end

-- The heading of a Lua module's file, or nil.
local function library_text(name)
  local path = type(name) == "string" and name:find "^[%w_.]+$"
    and package.searchpath(name, package.path)
  local text = path and host.file.read(path, 1 << 22)
  local about = text and require("llm.usage").heading(text)
  return about and about ~= "" and name .. ": " .. about or nil
end

-- The module that a value is, or nil.
local function loaded_as(value)
  for _, name in ipairs(docs.sorted(package.loaded)) do
    if rawequal(package.loaded[name], value) then return name end
  end
end

-- A function nobody documented: where it was written, and what it takes.
local function function_text(f)
  local info = debug.getinfo(f, "Su")
  if info.what == "C" then return "a C function without documentation" end
  local names = {}
  for i = 1, info.nparams do names[i] = debug.getlocal(f, i) end
  if info.isvararg then names[#names + 1] = "..." end
  return ("function(%s), %s:%d"):format(table.concat(names, ", "),
    info.short_src, info.linedefined)
end

-- The text about a value or a name; without one, an overview.
function help.text(...)
  if select("#", ...) == 0 then return overview() end
  local target = ...
  if type(target) == "string" then
    return not docs.registered()[target] and library_text(target)
      or named(target)
  end
  local name = docs.name_of(target)
  if name then return named(name) end
  local module = library_text(loaded_as(target))
  if module then return module end
  if type(target) == "function" then return function_text(target) end
  return "a " .. type(target) .. "; help \"NAME\" looks a name up"
end

return setmetatable(help, {
  __call = function(_, ...) print(help.text(...)) end,
  __tostring = function()
    return "help(), help(gpu.nn.linear), help \"matmul\", help \"train.lr\""
  end,
})
