-- gpu.save and gpu.load: what goes in comes out, and damage is told.
local check = require "check"
local gpu = require "gpu"
local host = require "host"

local folder = os.getenv "TMPDIR" or "/tmp"
local path = folder .. "/test_safetensors_lua.safetensors"

check.case("every dtype comes back", function()
  local x = gpu.randn { 3, 5, seed = 1 }
  local q = gpu.quant.nf4(x)
  local all = { f32 = x, bf16 = x:to "bf16", f16 = x:to "f16",
    e4m3 = x:to "e4m3", i32 = gpu.tensor { 1, -2, 3, dtype = "i32" },
    i8 = gpu.quant.int8(x).codes, u8 = q:state().weight,
    ["a \"name\" with\n\\ and ü"] = gpu.ones { 1, 1, 2 },
    scalar = x:sum() }
  check.equal(gpu.save(path, all, { made = "here", ["ä"] = "" }), true)
  local back, metadata = gpu.load(path)
  local count = 0
  for name, t in pairs(back) do
    count = count + 1
    check.equal(t.dtype, all[name].dtype, name)
    check.equal(table.concat(t.shape, "x"), table.concat(all[name].shape, "x"))
    check.truthy(t:equal(all[name]), name)
  end
  check.equal(count, 9)
  check.equal(metadata.made, "here")
  check.equal(metadata["ä"], "")
end)

check.case("the same tensors give the same bytes", function()
  local texts = {}
  for round = 1, 2 do
    local t = {}
    for i = 1, 30 do
      local k = round == 1 and i or 31 - i
      t["t" .. k] = gpu.full { k, value = k }
    end
    gpu.save(path, t, { b = "2", a = "1", c = "3" })
    texts[round] = host.file.read(path)
  end
  check.truthy(texts[1] == texts[2])
end)

check.case("more than one piece", function()
  local t = gpu.randn { 700001, seed = 4 }
  check.truthy(gpu.save(path, { t = t }))
  check.truthy(gpu.load(path).t:equal(t))
end)

check.case("nothing is a file, too", function()
  check.truthy(gpu.save(path, {}))
  local t, metadata = gpu.load(path)
  check.equal(next(t), nil)
  check.equal(next(metadata), nil)
end)

check.case("a file of PyTorch", function()
  local t = gpu.load "tests/reference/mha.safetensors"
  local count = 0
  for _, one in pairs(t) do count = count + one:numel() end
  check.truthy(count > 1000, tostring(count))
end)

check.case("mistakes raise", function()
  local x = gpu.ones { 2 }
  check.raises("gpu.save: the path must be a string, got table", gpu.save, {})
  check.raises("gpu.save: expected a table of tensors by name, got gpu.tensor",
    gpu.save, path, x)
  check.raises("gpu.save: 'a' must be an open gpu.tensor, got 1",
    gpu.save, path, { a = 1 })
  check.raises("gpu.save: a tensor's name must be a string, got 1", gpu.save,
    path, { x })
  check.raises("gpu.save: a tensor's name must not hold a zero byte",
    gpu.save, path, { ["a\0b"] = x })
  check.raises("a tensor's name is not UTF-8", gpu.save, path,
    { ["\xff"] = x })
  check.raises("gpu.save: a value in metadata must be a string, got 1",
    gpu.save, path, { x = x }, { a = 1 })
  check.raises("tensor 'q' is u4, safetensors has whole bytes", gpu.save, path,
    { q = gpu.quant.nf4(x).codes })
  x:close()
  check.raises("gpu.save: 'a' must be an open gpu.tensor", gpu.save, path,
    { a = x })
  check.raises("gpu.load: the path must be a string", gpu.load)
end)

local function world(code, message, ...)
  local value, got, word = ...
  check.equal(value, nil)
  check.equal(word, code)
  check.truthy(got:find(message, 1, true), got)
end

check.case("the world's errors are told", function()
  world("io", "cannot open '/nonexistent/x'", gpu.load "/nonexistent/x")
  world("io", "cannot create '/nonexistent/x'", gpu.save("/nonexistent/x",
    { x = gpu.ones { 2 } }))
end)

local function write(header, values)
  host.file.write(path, string.pack("<I8", #header) .. header .. values)
end

check.case("damage is told", function()
  gpu.save(path, { x = gpu.ones { 100 } })
  local text = host.file.read(path)
  host.file.write(path, text:sub(1, -2))
  world("format", "has 399 bytes of values, its header says 400",
    gpu.load(path))
  host.file.write(path, ("\xff"):rep(8) .. text:sub(9))
  world("format", "a header of 18446744073709551615 bytes, at most 100000000",
    gpu.load(path))
  write("[]", "")
  world("format", "the header does not begin with '{'", gpu.load(path))
  write('{"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}', ("x"):rep(8))
  world("unsupported", "tensor 'x' is F64, which no operator takes",
    gpu.load(path))
  write('{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', "")
  world("unsupported", "tensor 'x' is empty", gpu.load(path))
end)

check.case("loading within a budget", function()
  gpu.save(path, { x = gpu.ones { 1000 }, y = gpu.ones { 1000 } })
  gpu.memory.trim()
  local before = gpu.memory.stats().current
  gpu.memory.budget(before + 5000)
  local e = check.raises("out of memory", gpu.load, path)
  check.equal(e.code, "oom")
  gpu.memory.budget(false)
  gpu.memory.trim()
  check.equal(gpu.memory.stats().current, before)
end)

host.file.remove(path)
check.done()
