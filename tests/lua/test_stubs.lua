-- lua/gpu.meta.lua and lua/host.meta.lua are what the binding documents now.
local check = require "check"
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

check.done()
