-- Annotations of the modules `gpu` and `host` for editors (LuaLS), written
-- from the documentation that their functions are registered with:
--
--   llmhost -e 'require("llm.stubs").write "lua"'
local docs = require "llm.docs"

local stubs = {}

-- Binary and unary metamethods that LuaLS knows, by name.
local OPERATORS = { __add = "add(%s|number)", __sub = "sub(%s|number)",
  __mul = "mul(%s|number)", __div = "div(%s|number)", __pow = "pow(number)",
  __unm = "unm" }
local TYPES = { integer = "integer", number = "number", boolean = "boolean",
  string = "string" }

local function sorted(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- What `path` ("gpu.nn") names inside the module `root`; nil for a class.
local function resolve(root, path)
  local at = root
  for word in path:gmatch "%.([^.]+)" do
    at = type(at) == "table" and at[word] or nil
  end
  return at
end

local function option_type(option)
  if not option.words then return TYPES[option.type] or "any" end
  return (option.words:gsub("[^|]+", '"%0"'))
end

-- The class of a function's options; adds it to `out` and gives its name.
local function options_class(out, owner, f)
  local name = owner .. "." .. f.name .. ".options"
  out[#out + 1] = "---@class " .. name
  for _, option in ipairs(f.options) do
    out[#out + 1] = ("---@field %s? %s %s"):format(option.name,
      option_type(option), option.doc)
  end
  out[#out + 1] = "---@field [integer] any the first options, by position"
  out[#out + 1] = ""
  return name
end

-- A signature as a LuaLS function type; `class` is self's, for methods.
local function function_type(f, class, options)
  local text = f.signature
  if text == "" then return "function" end
  if options then text = text:gsub(": table", ": " .. options, 1) end
  if class and text:find "^%(self" then
    text = text:gsub("^%(self", "(self: " .. class, 1)
  elseif class then
    text = text:gsub("^%(", "(self: " .. class .. ", ", 1)
      :gsub(", %)", ")", 1)
  end
  -- Where a module and a class share a name, the result is the class.
  text = text:gsub("%): ([%w.]+)(|?)", function(name, rest)
    local both = docs.module(name) and #docs.methods(name) > 0
    return both and ("): %s.object%s"):format(name, rest) or nil
  end)
  return "fun" .. text
end

-- The fields of one class: lines to follow its heading.
local function fields(out, functions, owner, class)
  local list = {}
  for _, f in ipairs(functions) do
    local operator = OPERATORS[f.name]
    if operator then
      list[#list + 1] = ("---@operator %s: %s"):format(
        operator:format(owner), owner)
    elseif docs.is_field(f) then
      list[#list + 1] = ("---@field %s %s %s"):format(f.name, f.signature,
        f.doc)
    elseif not f.name:find "^__" then
      local options = f.options and options_class(out, owner, f)
      list[#list + 1] = ("---@field %s %s %s"):format(f.name,
        function_type(f, class and owner, options),
        f.doc:gsub("%s+", " "))
    end
  end
  return list
end

local function add_class(out, name, functions, is_class, extra)
  local list = fields(out, functions, name, is_class)
  table.sort(list)
  out[#out + 1] = "---@class " .. name
  table.move(list, 1, #list, #out + 1, out)
  for _, line in ipairs(extra or {}) do out[#out + 1] = line end
  out[#out + 1] = ""
end

-- Functions of a module and methods of the class of the same name.
local function parted(functions, at)
  local own, methods = {}, {}
  for _, f in ipairs(functions) do
    local mine = type(at) == "table" and rawget(at, f.name) ~= nil
    table.insert(mine and own or methods, f)
  end
  return own, methods
end

-- Sub-modules of `path` among the documented paths, as field lines.
local function children(registered, root, path)
  local list = {}
  for _, other in ipairs(sorted(registered)) do
    local leaf = other:match("^" .. path:gsub("%.", "%%.") .. "%.([^.]+)$")
    if leaf and type(resolve(root, other)) == "table" then
      list[#list + 1] = ("---@field %s %s"):format(leaf, other)
    end
  end
  return list
end

-- The annotations of "gpu" or "host", as the text of its file.
function stubs.text(name)
  local root = require(name)
  local registered = docs.registered()
  local out = { "-- Annotations of the module `" .. name .. "` for editors, "
    .. "written by lua/llm/stubs.lua.", "---@meta " .. name, "" }
  for _, path in ipairs(sorted(registered)) do
    if path == name or path:find("^" .. name .. "%.") then
      local at = resolve(root, path)
      local own, methods = parted(registered[path], at)
      local module = type(at) == "table"
      if module then
        add_class(out, path, own, false, children(registered, root, path))
      end
      if #methods > 0 then
        add_class(out, module and path .. ".object" or path, methods, true)
      end
    end
  end
  out[#out + 1] = "---@type " .. name
  out[#out + 1] = "local " .. name
  out[#out + 1] = "return " .. name
  return ((table.concat(out, "\n") .. "\n"):gsub(" +\n", "\n"))
end

-- Write both files, and the reference for people, into `folder`.
function stubs.write(folder)
  local file = require("host").file
  assert(file.write(folder .. "/REFERENCE.md",
    require("llm.reference").text()))
  for _, name in ipairs { "gpu", "host" } do
    assert(file.write(folder .. "/" .. name .. ".meta.lua", stubs.text(name)))
  end
end

return stubs
