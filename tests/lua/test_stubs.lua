-- lua/gpu.meta.lua and lua/host.meta.lua are what the binding documents now.
local check = require "check"
local docs = require "llm.docs"
local host = require "host"
local stubs = require "llm.stubs"

for _, name in ipairs { "gpu", "host" } do
  check.case(name .. ".meta.lua is not stale", function()
    local path = "lua/" .. name .. ".meta.lua"
    local stored = assert(host.file.read(path))
    check.truthy(stored == stubs.text(name), path .. " is stale; mend it by "
      .. "llmhost -e 'require(\"llm.stubs\").write \"lua\"'")
  end)

  check.case(name .. ".meta.lua names every public function", function()
    local text = stubs.text(name)
    local function walk(path, module)
      for key, value in pairs(module) do
        if type(value) == "function" then
          check.truthy(text:find("---@field " .. key .. " fun(", 1, true),
            path .. "." .. key .. " has no annotation")
        elseif type(value) == "table" and value ~= host.options
          and value ~= host.json and key ~= "version" then
          walk(path .. "." .. key, value)
        end
      end
    end
    walk(name, require(name))
  end)

  check.case(name .. ".meta.lua is Lua", function()
    check.truthy(load(stubs.text(name), name, "t"))
  end)
end

check.case("REFERENCE.md is not stale", function()
  check.truthy(host.file.read "lua/REFERENCE.md"
    == require("llm.reference").text(), "lua/REFERENCE.md is stale; mend it "
    .. "by llmhost -e 'require(\"llm.stubs\").write \"lua\"'")
end)

-- Classes of userdata that scripts meet: metatables of the registry.
local function classes()
  local list = {}
  for name, meta in pairs(debug.getregistry()) do
    if type(name) == "string" and type(meta) == "table"
      and name:find "^%a+%.[%w.]+$" and rawget(meta, "__gc") then
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

-- Classes that no script holds have no documented methods; a symbol has those
-- of a tensor.
local function inner(class)
  return class == "gpu.symbol" or not docs.registered()[class]
    and next(docs.live(class), next(docs.live(class))) == nil
end

check.case("every method of every class is annotated", function()
  local gpu = require "gpu"
  gpu.nn.silu {} -- classes are made when first used
  gpu.randn { 2 }
  local text, count = stubs.text "gpu" .. stubs.text "host", 0
  for _, class in ipairs(classes()) do
    if not inner(class) then
      local at = text:match("%-%-%-@class " .. class:gsub("%.", "%%.")
        .. "%f[\n][^\0]-\n\n")
        or error(class .. " has no annotation")
      at = at .. (text:match("%-%-%-@class " .. class:gsub("%.", "%%.")
        .. "%.object\n[^\0]-\n\n") or "")
      for name in pairs(docs.live(class)) do
        count = count + 1
        check.truthy(at:find("---@field " .. name .. " ", 1, true),
          class .. ":" .. name .. " has no annotation")
      end
    end
  end
  check.truthy(count > 80, count)
end)

check.case("every class that a signature names is annotated", function()
  local text, count = stubs.text "gpu" .. stubs.text "host", 0
  for _, e in ipairs(docs.all()) do
    for name in e.entry.signature:gmatch "%f[%a][gh][po][us]t?%.[%w.]+" do
      count = count + 1
      check.truthy(text:find("---@class " .. name .. "\n", 1, true),
        e.name .. ": " .. name)
    end
  end
  check.truthy(count > 60, count)
end)

-- A table of options that a function checks but does not document would be
-- found by nobody.
check.case("every list of options belongs to a documented function", function()
  local count = 0
  for _, path in ipairs(assert(host.file.glob "host/bind/*.c")) do
    local source = assert(host.file.read(path))
    for list in source:gmatch "lh_option%s+([%w_]+)%[%]" do
      count = count + 1
      local nested = source:find("[^\n]*lh_options%(L, [%w_>.-]+, \"[%w.]+: "
        .. "[^;]-" .. list .. ",")
      check.truthy(source:find("[%s(]" .. list .. "}")
        or source:find("[%s(]" .. list .. "%)") or nested,
        path .. ": " .. list .. " is in no function's documentation")
    end
  end
  check.truthy(count > 25, count)
end)

check.case("what is indexed by the binding is annotated", function()
  local gpu = require "gpu"
  local text = stubs.text "gpu"
  for _, name in ipairs { "shape", "dtype", "device" } do
    check.truthy(gpu.zeros { 1 }[name])
    check.truthy(text:find("\n---@field " .. name .. " ", 1, true), name)
  end
  local q = gpu.quant.nf4(gpu.randn { 64, 2 })
  for _, name in ipairs { "codes", "scales", "shape", "format", "block" } do
    check.truthy(q[name], name)
    check.truthy(docs.method("gpu.quantized", name), name)
  end
end)

check.case("option tables are spelt out", function()
  local text = stubs.text "gpu"
  for _, line in ipairs {
    "---@class gpu.nn.attention.options", "---@field kv_heads? integer ",
    "fun(options: gpu.nn.attention.options): gpu.layer",
    "---@operator add(gpu.tensor|number): gpu.tensor",
    "---@field nn gpu.nn\n" } do
    check.truthy(text:find(line, 1, true), line)
  end
end)

check.case(".luarc.json points the language server at the annotations",
  function()
    local rc = assert(host.json.decode(host.file.read ".luarc.json"))
    check.equal(rc["runtime.version"], "Lua 5.4")
    check.equal(rc["workspace.library"][1], "lua")
  end)

check.done()
