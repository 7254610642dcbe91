-- gpu.quant from Lua: golden bytes, sizes, errors against plain arithmetic,
-- double quantization, bitsandbytes' state dict, and what is refused.
local check = require "check"
local gpu = require "gpu"
local host = require "host"

local golden = host.json.decode(host.file.read "tests/reference/golden.json")

-- The values of fp4.md's golden vector.
local function golden_values(count)
  local values = {}
  for i = 0, count - 1 do
    local hash = ((i + 1) * 2654435761) & 0xFFFFFFFF
    if hash >= 0x80000000 then hash = hash - 0x100000000 end
    values[i + 1] = (hash >> 8 | (hash < 0 and ~0 << 56 or 0)) / 2 ^ 24
      * (1 + i // 64 % 7)
  end
  return values
end

local function floats(t)
  local out = {}
  for i, x in ipairs(t:table()) do out[i] = string.pack("<f", x) end
  return table.concat(out)
end

-- A u8 tensor's bytes.
local function bytes(t)
  local out = {}
  for i, x in ipairs(t:reshape { t:numel() }:table()) do
    out[i] = string.char(x)
  end
  return table.concat(out)
end

local function hex(s) return (s:gsub(".", function(c)
  return ("%02x"):format(c:byte())
end)) end

check.case("golden bytes of nf4 and fp4", function()
  local x = gpu.tensor(golden_values(golden.count))
  check.equal(host.fnv1a64(floats(x)), golden.input)
  for _, name in ipairs { "nf4", "fp4" } do
    local q <close> = gpu.quant[name](x)
    local want, codes = golden[name], bytes((q:state())["weight"])
    check.equal(hex(codes:sub(1, 16)), want.packed_head, name)
    check.equal(host.fnv1a64(codes), want.packed, name)
    check.equal(host.fnv1a64(floats(q.scales)), want.absmax, name)
    check.equal(host.fnv1a64(floats(q:dequantize())), want.dequantized, name)
  end
end)

check.case("fields", function()
  local q = gpu.quant.nf4(gpu.randn { 3, 43, seed = 1 }, { block = 32 })
  check.equal(q.format, "nf4")
  check.equal(q.block, 32)
  check.equal(table.concat(q.shape, "x"), "3x43")
  check.equal(q.codes.dtype, "u4")
  check.equal(q.scales:numel(), 5) -- 129 values, the last block is short
  check.equal(q:bytes(), 65 + 5 * 4)
  check.equal(q.tensor_scale, nil)
  check.equal(q.double, nil)
  check.equal(q.nothing, nil)
  check.equal(tostring(q), "gpu.quantized nf4 [3, 43], block 32, 85 bytes")
  local whole = gpu.quant.e4m3(gpu.randn { 10, 10, seed = 1 })
  check.equal(whole.block, 100)
  check.equal(whole:bytes(), 104)
  local two = gpu.quant.nvfp4(gpu.randn { 64, seed = 1 })
  check.equal(two.tensor_scale:numel(), 1)
  check.equal(two:bytes(), 32 + 4 + 4)
end)

-- Relative mean squared errors on N(0, 1) that a wrong format would not meet.
local MOST = { nf4 = .0088, fp4 = .0156, int8 = 5e-5, int4 = .0122,
  e4m3 = 8e-4, nvfp4 = .0096, mxfp4 = .0140, dyn8 = 1.5e-4 }

check.case("every format of the list", function()
  local x = gpu.randn { 512, 128, seed = 3 }
  local formats = gpu.quant.formats()
  check.equal(#formats, 8)
  for _, f in ipairs(formats) do
    local q <close> = gpu.quant[f.name](x)
    local e = gpu.quant.error(x, q)
    check.truthy(e.relative < MOST[f.name], f.name .. ": " .. e.relative)
    check.truthy(e.relative > MOST[f.name] / 4, f.name .. ": " .. e.relative)
    check.equal(q.codes.dtype, f.codes, f.name)
    check.equal(q.scales.dtype, f.scales, f.name)
    check.near(q:bytes() * 8 / x:numel(), f.bits, .001, f.name)
  end
end)

check.case("errors are what plain arithmetic gives", function()
  local x = gpu.randn { 5, 77, seed = 9 }
  local q <close> = gpu.quant.int4(x, { block = 32 })
  local a = x:reshape { 385 }:table()
  local b = q:dequantize():reshape { 385 }:table()
  local squares, power, most = 0, 0, 0
  for i = 1, #a do
    local d = a[i] - b[i]
    squares, power = squares + d * d, power + a[i] * a[i]
    most = math.max(most, math.abs(d))
  end
  local e = gpu.quant.error(x, q)
  check.near(e.mse, squares / 385, 1e-6 * squares / 385)
  check.near(e.relative, squares / power, 1e-6 * squares / power)
  check.near(e.max, most, 1e-6)
  check.near(e.sqnr_db, 10 * math.log(power / squares, 10), 1e-5)
end)

check.case("no error is zero and infinite decibels", function()
  local x = gpu.zeros { 64 }
  local e = gpu.quant.error(x, gpu.quant.nf4(x))
  check.equal(e.mse, 0)
  check.equal(e.relative, 0)
  check.equal(e.max, 0)
  check.equal(e.sqnr_db, math.huge)
end)

check.case("searched scales have less error", function()
  local x = gpu.randn { 256, 256, seed = 5 }
  local plain = gpu.quant.error(x, gpu.quant.nf4(x)).mse
  local best = gpu.quant.error(x, gpu.quant.nf4(x, { search = true })).mse
  check.truthy(best < .9 * plain, best .. " against " .. plain)
end)

check.case("double quantization", function()
  local x = gpu.randn { 512, 512, seed = 7 }
  local one <close> = gpu.quant.nf4(x)
  local two <close> = gpu.quant.nf4(x, { double = true })
  local blocks = 512 * 512 / 64
  check.equal(two:bytes(), 512 * 256 + blocks + blocks / 256 * 4 + 4)
  check.near(8 * two:bytes() / x:numel(), 4.127, .001)
  check.equal(two.double.codes.dtype, "u8")
  check.equal(two.double.scales:numel(), blocks / 256)
  check.truthy(one.codes:reshape { 512 * 512 }:table()[77]
    == two.codes:reshape { 512 * 512 }:table()[77])
  check.near(two.double.offset:item(), one.scales:mean():item(), 1e-6)
  check.truthy(two.scales:allclose(one.scales, { rtol = .02, atol = .02 }))
  local a, b = gpu.quant.error(x, one).mse, gpu.quant.error(x, two).mse
  check.truthy(b > a and b < 1.02 * a, a .. " and " .. b)
end)

check.case("other dtypes in and out", function()
  local x = gpu.randn { 4, 64, seed = 11 }
  local half = x:to "bf16"
  local q <close> = gpu.quant.nf4(half)
  local same <close> = gpu.quant.nf4(half:to "f32")
  check.truthy(q:dequantize():equal(same:dequantize()))
  check.equal(q:dequantize("bf16").dtype, "bf16")
  check.truthy(q:dequantize("bf16"):equal(q:dequantize():to "bf16"))
  check.raises("dequantize: i32 is no floating-point dtype", q.dequantize, q,
    "i32")
  check.raises("dequantize: 'f12' is not a dtype", q.dequantize, q, "f12")
end)

local function keys(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = key end
  table.sort(list)
  return table.concat(list, " ")
end

check.case("bitsandbytes' state dict", function()
  local q = gpu.quant.nf4(gpu.randn { 48, 33, seed = 2 })
  local state, text = q:state("mlp.up.weight", "bf16")
  check.equal(keys(state), "mlp.up.weight mlp.up.weight.absmax "
    .. "mlp.up.weight.quant_map "
    .. "mlp.up.weight.quant_state.bitsandbytes__nf4")
  check.equal(text, '{"quant_type": "nf4", "blocksize": 64, '
    .. '"dtype": "bfloat16", "shape": [48, 33]}')
  check.equal(bytes(state["mlp.up.weight.quant_state.bitsandbytes__nf4"]),
    text)
  check.equal(table.concat(state["mlp.up.weight"].shape, "x"), "792x1")
  check.equal(state["mlp.up.weight"].dtype, "u8")
  check.truthy(state["mlp.up.weight.absmax"]:equal(q.scales))
  local map = state["mlp.up.weight.quant_map"]:table()
  check.equal(#map, 16)
  check.equal(map[1], -1.0)
  check.equal(map[2], -0.6961928009986877)
  check.equal(map[8], 0.0)
  local _, plain = gpu.quant.fp4(gpu.randn { 7, seed = 1 },
    { block = 128 }):state()
  check.equal(plain, '{"quant_type": "fp4", "blocksize": 128, '
    .. '"dtype": "float32", "shape": [7]}')
end)

check.case("the state dict of double quantization", function()
  local q = gpu.quant.nf4(gpu.randn { 64, 64, seed = 2 }, { double = true })
  local state, text = q:state "w"
  check.equal(keys(state), "w w.absmax w.nested_absmax w.nested_quant_map "
    .. "w.quant_map w.quant_state.bitsandbytes__nf4")
  local prefix = '{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", '
    .. '"shape": [64, 64], "nested_blocksize": 256, "nested_dtype": "float32", '
    .. '"nested_offset": '
  check.equal(text:sub(1, #prefix), prefix)
  check.equal(tonumber(text:sub(#prefix + 1, -2)), q.double.offset:item())
  check.equal(state["w.absmax"].dtype, "u8")
  check.equal(state["w.nested_quant_map"]:numel(), 256)
end)

-- The offset of equal scales is that scale: how numbers are written.
check.case("numbers in the state dict are Python's", function()
  for value, text in pairs { [1] = "1.0", [.5] = "0.5", [100] = "100.0",
    [2 ^ -20] = "9.5367431640625e-07", [12345678] = "12345678.0",
    [2 ^ 60] = "1.152921504606847e+18", [.1] = "0.10000000149011612",
    [2 ^ -10] = "0.0009765625" } do
    local q = gpu.quant.nf4(gpu.full { 64, value = value }, { double = true })
    local _, json = q:state()
    check.equal(json:match '"nested_offset": (.*)}$', text)
  end
end)

check.case("what is refused", function()
  local x = gpu.randn { 8, 8, seed = 1 }
  check.raises("gpu.quant.nf4: unknown option 'blok'; did you mean 'block'?",
    gpu.quant.nf4, x, { blok = 64 })
  check.raises("gpu.quant.nf4: option 'block' must be from 8 to 4096, got 4",
    gpu.quant.nf4, x, { block = 4 })
  check.raises("quantize: block is 20, needs a multiple of 8 up to 4096",
    gpu.quant.nf4, x, { block = 20 })
  check.raises("quantize: block is 64, nvfp4 needs 16", gpu.quant.nvfp4, x,
    { block = 64 })
  check.raises("quantize: search is not for mxfp4", gpu.quant.mxfp4, x,
    { search = true })
  check.raises("gpu.quant.int8: option 'double' is for nf4 and fp4",
    gpu.quant.int8, x, { double = true })
  check.raises("expected gpu.tensor, got 1", gpu.quant.nf4, 1)
  check.raises("expected gpu.quantized, got gpu.tensor", gpu.quant.error, x, x)
  check.raises("the tensor has shape [8], what was quantized [8, 8]",
    gpu.quant.error, gpu.ones { 8 }, gpu.quant.nf4(x))
  local q = gpu.quant.int8(x)
  check.raises("bitsandbytes has no state dict for int8", q.state, q)
  check.raises("state: dtype is e4m3, needs f32, bf16 or f16", q.state,
    gpu.quant.nf4(x), "w", "e4m3")
  q:close()
  check.raises("this gpu.quantized is closed", q.bytes, q)
  check.raises("this gpu.quantized is closed", function() return q.codes end)
  check.equal(tostring(q), "gpu.quantized (closed)")
end)

check.case("closing frees at once; parts live on", function()
  local x = gpu.randn { 64, 64, seed = 1 }
  gpu.memory.trim()
  local before = gpu.memory.stats().current
  local q = gpu.quant.nf4(x)
  check.truthy(gpu.memory.stats().current >= before + q:bytes())
  local scales = q.scales
  q:close()
  check.equal(gpu.memory.stats().current, before + scales:bytes())
  check.equal(scales:numel(), 64)
  scales:close()
  check.equal(gpu.memory.stats().current, before)
end)

check.case("a budget that is too small leaks nothing", function()
  local x = gpu.randn { 256, 256, seed = 1 }
  gpu.memory.trim()
  local before = gpu.memory.stats().current
  for extra = 0, 400000, 10007 do
    gpu.memory.budget(before + extra + 1)
    for _, options in ipairs { {}, { double = true } } do
      local ok, q = pcall(gpu.quant.nf4, x, options)
      if ok then
        pcall(gpu.quant.error, x, q)
        q:close()
      else
        check.equal(q.code, "oom")
      end
    end
  end
  gpu.memory.budget(false)
  gpu.memory.trim()
  check.equal(gpu.memory.stats().current, before)
end)

check.done()
