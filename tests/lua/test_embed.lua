-- The modules outside of llmhost: in a stock lua5.4, and in another program
-- through libllmhost, from an installation.
local check = require "check"
local host = require "host"

local variant = (os.getenv("LLMHOST") or ""):match("build/(%w+)/llmhost")
  or "release"
local scratch = (os.getenv("TMPDIR") or "/tmp") .. "/llmhost-embed-"
  .. host.process.pid()
local prefix = scratch .. "/usr"

local function run(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1"))
  local text = pipe:read("a")
  local _, _, code = pipe:close()
  return text, code
end

local function stock()
  for _, name in ipairs { "lua5.4", "lua54", "lua" } do
    local text = run(name .. " -v")
    if text:find "^Lua 5%.4" then return name end
  end
  check.skip("no stock lua5.4 here")
end

-- lua5.4 CODE with the paths it would have if `prefix` were /usr/local.
local function lua(code, before)
  if variant ~= "release" then check.skip("of the release build alone") end
  return run(("cd / && env LUA_PATH='%s/share/lua/5.4/?.lua;;' "
    .. "LUA_CPATH='%s/lib/lua/5.4/?.so;;' %s %s -e '%s'"):format(prefix,
    prefix, before or "", stock(), code))
end

check.case("make install", function()
  local text, code = run("make --no-print-directory VARIANT=" .. variant
    .. " install PREFIX=" .. prefix)
  check.equal(code, 0, text)
end)

check.case("require gpu and host in a stock lua", function()
  local text, code = lua [[
    local gpu, host = require "gpu", require "host"
    print(gpu.tensor { { 1, 2 }, { 3, 4 } }:sum():item())
    print(host.json.encode { 1, 2 })
    print(package.loaded.gpu == gpu, rawget(_G, "gpu"), rawget(_G, "host"))]]
  check.equal(code, 0, text)
  check.equal(text, "10.0\n[1,2]\ntrue\tnil\tnil\n")
end)

check.case("the library of experiments in a stock lua", function()
  local text, code = lua [[
    local gpu = require "gpu"
    local m = require("llm.model").transformer { vocab = 64, d_model = 16,
      n_layers = 1, n_heads = 2, d_ff = 32 }
    local p <close> = gpu.compile(m, { batch = 2, seq = 8 })
    print(p:memory().peak > 0, p:count().parameters)]]
  check.equal(code, 0, text)
  check.equal(text, ("true\t%d\n"):format(64 * 16 + 4 * 16 * 16 + 2 * 16 * 32
    + 3 * 16))
end)

check.case("the CUDA plugin, where there is one, is found from the library",
  function()
    local plugin = prefix .. "/lib/llmhost/llmhost_cuda.so"
    if not host.file.exists(plugin) then check.skip "built without CUDA" end
    local text, code = lua [[
      local facts, why = require("gpu").cuda()
      print(facts and #facts.architectures > 0, why)]]
    check.equal(code, 0, text)
    check.equal(text, "true\tnil\n")
  end)

check.case("an error is an object; nothing is printed, nobody exits",
  function()
    local text, code = lua [[
      local ok, e = pcall(require("gpu").zeros, { 2, nonsense = 1 })
      print(ok, type(e), e.code)]]
    check.equal(code, 0, text)
    check.equal(text, "false\ttable\targument\n")
  end)

check.case("a program of its own, by pkg-config", function()
  if variant ~= "release" then check.skip("of the release build alone") end
  local module
  for _, name in ipairs { "lua5.4", "lua-5.4", "lua54", "lua" } do
    if select(2, run("pkg-config --exists " .. name)) == 0 then
      module = module or name
    end
  end
  local text, code = run(("PKG_CONFIG_PATH=%s/lib/pkgconfig; "
    .. "export PKG_CONFIG_PATH; ${CC:-cc} -Wall -Werror "
    .. "tests/embed/example.c -o %s/example "
    .. "$(pkg-config --cflags --libs llmhost %s) -Wl,-rpath,%s/lib")
    :format(prefix, scratch, module, prefix))
  check.equal(code, 0, text)
  text, code = run("cd / && " .. scratch .. "/example")
  check.equal(code, 0, text)
  local loss = text:match "^llmhost %d+%.%d+%.%d+: loss after 20 steps: (%S+)"
  check.truthy(loss and tonumber(loss) < .1, text)
end)

check.case("two states in one process know nothing of each other", function()
  if variant ~= "release" then check.skip("of the release build alone") end
  local text, code = run(("${CC:-cc} -Wall -Werror tests/embed/states.c "
    .. "-o %s/states -I%s/include $(pkg-config --cflags --libs lua5.4) "
    .. "-L%s/lib -lllmhost -Wl,-rpath,%s/lib && %s/states"):format(scratch,
    prefix, prefix, prefix, scratch))
  check.equal(code, 0, text)
  check.equal(text, "same\n")
end)

host.file.remove_tree(scratch)
check.done()
