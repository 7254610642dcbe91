-- Checkpoints: what training goes on from is all there, to the bit; what does
-- not fit is refused before anything changes; a broken restore is noticed.
local check = require "check"
local gpu = require "gpu"
local host = require "host"
local tiny = require "tiny"

local batch, compile, run = tiny.batch, tiny.compile, tiny.run
local same_files = tiny.same_files

local folder = (os.getenv "TMPDIR" or "/tmp") .. "/test_checkpoint"
host.file.remove_tree(folder)

local function place(name)
  local path = folder .. "/" .. name
  assert(host.file.mkdir(path))
  return path
end

-- A checkpoint after three steps, and what steps 4 to 6 give without a stop.
local function made(how, name)
  local dir, p <close> = place(name), compile(how)
  run(p, 1, 3)
  assert(p:save(dir))
  local rest = run(p, 4, 6)
  local after = place(name .. "-after")
  assert(p:save(after))
  return dir, rest, after
end

-- --- to the bit -------------------------------------------------------------

local KINDS = {
  { name = "f32, Muon and AdamW" },
  { name = "f32, AdamW", optimizer = "adamw" },
  { name = "f32, SGD", optimizer = "sgd" },
  { name = "f32, accumulated", accumulate = 2 },
  { name = "nf4r, fused", quantize = "nf4r" },
  { name = "nf4r, accumulated", quantize = "nf4r", accumulate = 2 },
  { name = "nf4r, block 32, searched",
    quantize = { "nf4r", block = 32, search = true } },
}

for i, how in ipairs(KINDS) do
  check.case("goes on to the bit: " .. how.name, function()
    local dir, rest, after = made(how, "kind" .. i)
    local p <close> = compile(how)
    check.equal(p:load(dir), true)
    local again = place("kind" .. i .. "-again")
    assert(p:save(again))
    check.truthy(same_files(dir, again), "a loaded program saves other bytes")
    check.equal(run(p, 4, 6), rest)
    assert(p:save(again))
    check.truthy(same_files(after, again), "other bytes three steps later")
  end)
end

check.case("over a program that has trained on", function()
  local how = { quantize = "nf4r" }
  local dir, rest = made(how, "over")
  local p <close> = compile(how)
  run(p, 7, 12)
  assert(p:load(dir))
  check.equal(run(p, 4, 6), rest)
end)

check.case("initial weights of another seed leave no trace", function()
  local how = { shape = { dropout = 0 } } -- its draws follow the seed
  local dir, rest = made(how, "seed")
  local p <close> = compile { shape = how.shape, seed = 99 }
  assert(p:load(dir))
  check.equal(run(p, 4, 6), rest)
end)

-- --- a broken restore is noticed --------------------------------------------

local function copy(from, to)
  for _, name in ipairs { "model.safetensors", "training.safetensors" } do
    assert(host.file.write(to .. "/" .. name,
      host.file.read(from .. "/" .. name)))
  end
end

-- Rewrite a file of the checkpoint after `change(tensors, metadata)`.
local function tamper(dir, name, change)
  local path = dir .. "/" .. name
  local tensors, metadata = assert(gpu.load(path))
  change(tensors, metadata)
  assert(gpu.save(path, tensors, metadata))
end

check.case("every part counts", function()
  local how = { quantize = "nf4r" }
  local dir, rest = made(how, "broken")
  local weight = "blocks.1.mlp.up.weight"
  local function differs(what, name, change)
    local other, p <close> = place "broken-other", compile(how)
    copy(dir, other)
    tamper(other, name, change)
    assert(p:load(other))
    check.truthy(run(p, 4, 6) ~= rest, what)
  end
  local function zero(part)
    return function(t)
      local old = assert(t[part], part)
      local shape_of = { dtype = old.dtype }
      for i, n in ipairs(old.shape) do shape_of[i] = n end
      t[part] = gpu.zeros(shape_of)
    end
  end
  for _, part in ipairs { "residual", "moment1", "mscale" } do
    differs(part, "training.safetensors", zero(weight .. "." .. part))
  end
  for _, part in ipairs { "moment1", "moment2" } do
    differs("AdamW's " .. part, "training.safetensors",
      zero("embedding.weight." .. part))
  end
  differs("codes", "model.safetensors", zero(weight))
  differs("scales", "model.safetensors", zero(weight .. ".absmax"))
  differs("norms", "model.safetensors", zero "norm.weight")
  differs("muon_factor", "training.safetensors", function(_, m)
    m.muon_factor = "0.125"
  end)
  differs("steps", "training.safetensors", function(_, m) m.steps = "0" end)
end)

-- --- what does not fit ------------------------------------------------------

-- Loading must fail with `text` and leave the program as it was.
local function refused(how, dir, text)
  local p <close> = compile(how)
  local q <close> = compile(how)
  run(p, 1, 2)
  run(q, 1, 2)
  local done, message, code = p:load(dir)
  check.equal(done, nil, text)
  check.equal(code, text:match "^cannot" and "io" or "format", message)
  check.truthy(message:find(text, 1, true), message .. " lacks " .. text)
  check.equal(run(p, 3, 4), run(q, 3, 4), "a refused load left a trace")
end

check.case("another model, storage or optimizer", function()
  local f32, nf4 = made({}, "f32"), made({ quantize = "nf4r" }, "nf4")
  refused({}, nf4, "weights are stored as nf4r, the program's as f32")
  refused({ quantize = "nf4r" }, f32,
    "weights are stored as f32, the program's as nf4r")
  refused({ shape = { d_ff = 96 } }, f32, "f32/model.safetensors': tensor "
    .. "'blocks.0.mlp.up.weight' is F32 [64, 32], the program needs "
    .. "F32 [96, 32]")
  refused({ shape = { n_layers = 1 } }, f32,
    "tensor 'blocks.1.attention.out.weight' is none of the program's")
  refused({ shape = { n_layers = 3 } }, f32,
    "is missing, the program needs F32 [32]")
  refused({ optimizer = "adamw" }, f32, "f32/training.safetensors': tensor "
    .. "'blocks.0.attention.qkv.weight.moment2' is missing, the program needs "
    .. "F32 [64, 32]")
  refused({ quantize = { "nf4r", block = 32 } }, nf4,
    "tensor 'blocks.0.attention.qkv.weight.absmax' is F32 [32], the program "
    .. "needs F32 [64]")
end)

local JSON = ".quant_state.bitsandbytes__nf4"

-- `text` as a u8 tensor, by way of a file.
local function u8(text)
  local path = place "u8" .. "/x"
  local header = ('{"x":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}')
    :format(#text, #text)
  assert(host.file.write(path, string.pack("<s8", header) .. text))
  return gpu.load(path).x
end

check.case("damage", function()
  local how = { quantize = "nf4r" }
  local dir, other = made(how, "damage"), place "damage-other"
  local weight = "blocks.0.mlp.down.weight"
  local function damaged(name, change, text)
    copy(dir, other)
    tamper(other, name, change)
    refused(how, other, text)
  end
  damaged("model.safetensors", function(t)
    t[weight .. JSON] = u8 '{"quant_type": "fp4"}'
  end, weight .. JSON .. ": another quant_type: it is "
    .. '{"quant_type": "fp4"}, the program needs {"quant_type": "nf4", '
    .. '"blocksize": 64, "dtype": "float32", "shape": [32, 64]}')
  damaged("model.safetensors", function(t)
    t[weight .. JSON] = u8('{"quant_type": "nf4", "blocksize": 64, '
      .. '"shape": [64, 32]}')
  end, "another shape")
  damaged("model.safetensors", function(t) t[weight .. JSON] = u8 "{" end,
    "expected a name in quotes")
  damaged("model.safetensors", function(t)
    t[weight .. ".quant_map"] = gpu.ones { 16 }
  end, "is not NF4's codebook")
  damaged("training.safetensors", function(_, m) m.muon_factor = nil end,
    "muon_factor is missing, needs a number")
  damaged("training.safetensors", function(_, m) m.loss_scale = "nan" end,
    "loss_scale is nan, needs a number")
  damaged("training.safetensors", function(t)
    t[weight .. ".residual"] = gpu.zeros { 32, 64 }
  end, "is F32 [32, 64], the program needs I8 [32, 64]")
  for _, name in ipairs { "model.safetensors", "training.safetensors" } do
    copy(dir, other)
    local text = host.file.read(other .. "/" .. name)
    assert(host.file.write(other .. "/" .. name, text:sub(1, -2)))
    refused(how, other, "bytes of values, its header says")
    host.file.remove(other .. "/" .. name)
    refused(how, other, "cannot open '" .. other .. "/" .. name .. "'")
  end
end)

check.case("a folder that is not there", function()
  local p <close> = compile {}
  local done, message, code = p:save(folder .. "/nowhere")
  check.equal(done, nil)
  check.equal(code, "io")
  check.truthy(message:find("cannot create", 1, true), message)
end)

-- --- reads that fail half-way -----------------------------------------------

-- What a program is after a load, said by a child whose n-th read of
-- training.safetensors fails.
local CHILD = [[
local tiny = require "tiny"
local dir, out = ...
local p = tiny.compile { quantize = "nf4r" }
local function is(name)
  assert(p:save(out))
  return tiny.same_files(out, name)
end
tiny.run(p, 1, 2)
local before = out .. "-before"
assert(p:save(before))
local done, message, code = p:load(dir)
print(done and "loaded" or code, is(dir) and "new" or is(before) and "old"
  or is(out .. "-initial") and "initial" or "torn")
]]

local function failing_read(dir, out, n)
  local script = out .. "/child.lua"
  assert(host.file.write(script, CHILD))
  local p <close> = host.process.spawn { "strace", "-f", "-o", "/dev/null",
    "-P", dir .. "/training.safetensors", "-e", "trace=pread64", "-e",
    "inject=pread64:error=EIO:when=" .. n, host.process.executable(), script,
    dir, out, stdin = "null", stdout = "pipe",
    env = { ASAN_OPTIONS = "detect_leaks=0" } }
  local line = p and p:read_line(60) or "no strace"
  return (line:gsub("%s+", " "))
end

check.case("a disk that fails leaves nothing torn", function()
  local how = { quantize = "nf4r" }
  local dir, out = made(how, "failing"), place "failing-out"
  place "failing-out-before"
  local fresh <close> = compile(how)
  assert(fresh:save(place "failing-out-initial"))
  local seen = {}
  for _, n in ipairs { 1, 2, 3, 4, 10, 30 } do
    local line = failing_read(dir, out, n)
    if line == "no strace" then check.skip "strace is not here" end
    seen[#seen + 1] = line
  end
  check.equal(table.concat(seen, ", "), "disk old, disk old, disk initial, "
    .. "disk initial, disk initial, disk initial")
  check.equal(failing_read(dir, out, 1000), "loaded new")
end)

-- --- other readers ----------------------------------------------------------

check.case("an evaluation reads the model alone", function()
  for _, quantize in ipairs { false, "nf4r" } do
    local how = { quantize = quantize or nil }
    local dir = place "evaluation"
    local trained <close> = compile(how)
    run(trained, 1, 3)
    assert(trained:save(dir))
    host.file.remove(dir .. "/training.safetensors")
    local p <close> = compile { optimizer = false, quantize = how.quantize }
    assert(p:load(dir))
    local x, y = batch(9)
    check.equal(("%a"):format(p:evaluate(x, y).loss),
      ("%a"):format(trained:evaluate(x, y).loss))
  end
end)

check.case("model.safetensors is a valid bitsandbytes checkpoint", function()
  local dir, p <close> = place "bitsandbytes", compile { quantize = "nf4r" }
  run(p, 1, 2)
  assert(p:save(dir))
  local t, metadata = gpu.load(dir .. "/model.safetensors")
  local name = "blocks.0.mlp.up.weight"
  check.equal(metadata.format, "pt")
  check.equal(table.concat(t[name].shape, "x"), "1024x1")
  local json = {}
  for i, c in ipairs(t[name .. JSON]:table()) do json[i] = string.char(c) end
  check.equal(table.concat(json), '{"quant_type": "nf4", "blocksize": 64, '
    .. '"dtype": "float32", "shape": [64, 32]}')
  -- codes, scales and map alone give the weight that the model computes with
  local map, scales = t[name .. ".quant_map"]:table(), t[name .. ".absmax"]
  local values, weight = {}, p:parameter(name)
  scales = scales:table()
  for i, byte in ipairs(t[name]:reshape { 1024 }:table()) do
    local scale = scales[(i - 1) // 32 + 1]
    values[2 * i - 1] = map[(byte >> 4) + 1] * scale
    values[2 * i] = map[(byte & 15) + 1] * scale
  end
  check.truthy(gpu.tensor(values):equal(weight:reshape { 2048 }))
  check.equal(t["embedding.weight"].dtype, "f32")
  check.truthy(t["norm.weight"]:equal(p:parameter "norm.weight"))
end)

check.case("nothing is left allocated", function()
  local dir = made({ quantize = "nf4r" }, "memory")
  gpu.memory.trim()
  local p <close> = compile { quantize = "nf4r" }
  run(p, 1, 1)
  gpu.memory.trim()
  local before = gpu.memory.stats().current
  assert(p:save(dir))
  assert(p:load(dir))
  check.equal(gpu.memory.stats().current, before)
end)

host.file.remove_tree(folder)
check.done()
