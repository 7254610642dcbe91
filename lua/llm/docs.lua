-- The documentation that the functions of `gpu` and `host` are registered
-- with, looked up by name, by value and by class. help(), completion and the
-- prompt's printing read it; llm.stubs writes it down for editors.
local docs = {}

local function registered()
  require "host.json" -- documents itself when it is loaded
  return debug.getregistry()["llmhost.docs"] or {}
end

docs.registered = registered

local function sorted(t)
  local keys = {}
  for key in pairs(t) do
    if type(key) == "string" then keys[#keys + 1] = key end
  end
  table.sort(keys)
  return keys
end
docs.sorted = sorted

-- The module table that a path ("gpu.nn") names, or nil.
function docs.module(path)
  local root = path:match "^%w+"
  local at = package.loaded[root]
  if not at and registered()[path] then at = require(root) end
  for word in path:gmatch "%.([^.]+)" do
    at = type(at) == "table" and at[word] or nil
  end
  return type(at) == "table" and at or nil
end

-- Every documented path, sorted: modules and classes.
function docs.paths() return sorted(registered()) end

local function own(path)
  local at = docs.module(path)
  return function(entry) return at and rawget(at, entry.name) ~= nil end
end

-- Entries { name, signature, doc, options } of a module's functions.
function docs.functions(path)
  local list, mine = {}, own(path)
  for _, entry in ipairs(registered()[path] or {}) do
    if mine(entry) then list[#list + 1] = entry end
  end
  return list
end

-- Entries of a class's methods and fields; a field's signature is its type.
function docs.methods(class)
  local list, mine = {}, own(class)
  for _, entry in ipairs(registered()[class] or {}) do
    if not mine(entry) and not entry.name:find "^__" then
      list[#list + 1] = entry
    end
  end
  return list
end

-- Is an entry a field rather than a function?
function docs.is_field(entry)
  return not entry.signature:find "^%(" and not entry.name:find "^__"
end

-- The class of a userdata of ours, or nil.
function docs.class(value)
  local class = type(value) == "userdata" and getmetatable(value)
  return type(class) == "string" and registered()[class] and class or nil
end

-- The live methods of a class, by name.
function docs.live(class)
  local meta = debug.getregistry()[class]
  local index = type(meta) == "table" and rawget(meta, "__index")
  if type(index) == "function" then index = select(2, debug.getupvalue(index,
    1)) end
  return type(index) == "table" and index or {}
end

local function find_in(list, name)
  for _, entry in ipairs(list) do
    if entry.name == name then return entry end
  end
end

-- The entry of method or field `name` of a class.
function docs.method(class, name) return find_in(docs.methods(class), name) end

-- The entry that a dotted name means, its kind and its full name: "gpu.nn",
-- "gpu.nn.linear", "gpu.tensor.matmul".
function docs.named(name)
  local path, leaf = name:match "^(.+)[.:]([^.:]+)$"
  if path and registered()[path] then
    local f = find_in(docs.functions(path), leaf)
    if f then
      return f, docs.is_field(f) and "field" or "function", path .. "." .. leaf
    end
    local m = docs.method(path, leaf)
    if m then
      return m, docs.is_field(m) and "field" or "method", path .. ":" .. leaf
    end
  end
  if registered()[name] then
    return nil, docs.module(name) and "module" or "class", name
  end
end

-- Every function, method and field as { name = full name, leaf, kind, entry },
-- by path.
function docs.all()
  local list = {}
  for _, path in ipairs(docs.paths()) do
    for _, entry in ipairs(docs.functions(path)) do
      list[#list + 1] = { name = path .. "." .. entry.name,
        leaf = entry.name, kind = "function", entry = entry, path = path }
    end
    for _, entry in ipairs(docs.methods(path)) do
      list[#list + 1] = { name = path .. ":" .. entry.name,
        leaf = entry.name, entry = entry, path = path,
        kind = docs.is_field(entry) and "field" or "method" }
    end
  end
  return list
end

-- What is documented of a value: a full name, or nil. Functions are compared
-- with what the modules and classes hold now.
function docs.name_of(value)
  if type(value) == "userdata" then return docs.class(value) end
  for _, path in ipairs(docs.paths()) do
    local module = docs.module(path)
    if module and rawequal(module, value) then return path end
    if type(value) == "function" then
      for _, entry in ipairs(docs.functions(path)) do
        if rawequal(module[entry.name], value) then
          return path .. "." .. entry.name
        end
      end
      local live = docs.live(path)
      for _, entry in ipairs(docs.methods(path)) do
        if rawequal(live[entry.name], value) then
          return path .. ":" .. entry.name
        end
      end
    end
  end
end

-- The name itself when it is a documented class or module.
function docs.class_named(name) return registered()[name] and name or nil end

-- The first type a signature returns ("gpu.tensor"), or nil.
function docs.returns(entry)
  local result = entry.signature:match "%):%s*([%w_.]+)"
  return result and registered()[result] and result or nil
end

return docs
