-- A run's scalars as an event file that TensorBoard reads: records of a length,
-- its masked CRC-32C, a protocol-buffer Event, and its masked CRC-32C.
--
--   tensorboard --logdir experiment_results/runs
local host = require "host"

local tensorboard = {}
tensorboard.__index = tensorboard

tensorboard.NAME = "events.out.tfevents.llmhost"

-- --- records ----------------------------------------------------------------

local function masked(text)
  local c = host.crc32c(text)
  return string.pack("<I4", ((c >> 15 | c << 17) + 0xA282EAD8) & 0xFFFFFFFF)
end

local function framed(data)
  local length = string.pack("<I8", #data)
  return length .. masked(length) .. data .. masked(data)
end

-- --- events -----------------------------------------------------------------
-- Event: 1 wall_time double, 2 step int64, 3 file_version string, 5 Summary.
-- Summary: 1 Value, repeated. Value: 1 tag string, 2 simple_value float.

local function varint(n)
  local bytes = {}
  repeat
    local low = n & 0x7F
    n = n >> 7
    bytes[#bytes + 1] = string.char(n ~= 0 and low | 0x80 or low)
  until n == 0
  return table.concat(bytes)
end

local function field(number, text)
  return string.char(number << 3 | 2) .. varint(#text) .. text
end

local function event(seconds, step, rest)
  return framed("\x09" .. string.pack("<d", seconds) .. "\x10" .. varint(step)
    .. rest)
end

-- Name of a metric, its tag; the part before the slash is a section there.
local TAGS = {
  { "loss", "loss/train" }, { "val_loss", "loss/validation" },
  { "accuracy", "accuracy/train" }, { "val_accuracy", "accuracy/validation" },
  { "perplexity", "perplexity/train" },
  { "val_perplexity", "perplexity/validation" },
  { "lr", "optimizer/learning_rate" }, { "grad_norm", "optimizer/grad_norm" },
  { "loss_scale", "optimizer/loss_scale" },
  { "tokens_per_second", "speed/tokens_per_second" },
  { "memory", "memory/bytes" },
}

local FLOAT_MOST = 3.4028234663852886e38

local function scalars(record)
  local values = {}
  for _, tag in ipairs(TAGS) do
    local v = record[tag[1]]
    if type(v) == "number" and math.abs(v) <= FLOAT_MOST then -- not NaN
      values[#values + 1] = field(1, field(1, tag[2]) .. "\x15"
        .. string.pack("<f", v))
    end
  end
  return table.concat(values)
end

-- --- files ------------------------------------------------------------------

-- The step of an event of ours, or nil.
local function step_of(data)
  if data:byte(1) ~= 0x09 or data:byte(10) ~= 0x10 then return nil end
  local step, shift = 0, 0
  for i = 11, math.min(#data, 20) do
    local byte = data:byte(i)
    step = step | (byte & 0x7F) << shift
    if byte < 0x80 then return step end
    shift = shift + 7
  end
end

-- The whole records of `text` up to `step`: what a run that goes on keeps.
local function kept(text, step)
  local at = 1
  while #text - at + 1 >= 16 do
    local length = string.unpack("<I8", text, at)
    local last = at + 16 + length - 1
    if length < 0 or length > #text or last > #text then break end
    local data = text:sub(at + 12, last - 4)
    local its_step = step_of(data)
    if masked(data) ~= text:sub(last - 3, last) or not its_step
      or its_step > step then
      break
    end
    at = last + 1
  end
  return text:sub(1, at - 1)
end

-- The event file of the run in `folder`, with what it holds up to `step`.
-- Gives nil, message, code when it cannot be written.
function tensorboard.open(folder, step)
  local path = folder .. "/" .. tensorboard.NAME
  local text = step > 0 and host.file.read(path) or ""
  text = kept(text, step)
  if text == "" then
    text = event(host.time(), 0, field(3, "brain.Event:2"))
  end
  local ok, message, code = host.file.write(path, text)
  if not ok then return nil, message, code end
  return setmetatable({ path = path, waiting = {} }, tensorboard)
end

-- Add a record of metrics, of now.
function tensorboard:add(record)
  local values = scalars(record)
  if values ~= "" then
    self.waiting[#self.waiting + 1] = event(host.time(), record.step,
      field(5, values))
  end
end

-- Everything added so far reaches the file; true, or nil, message, code.
function tensorboard:flush()
  if #self.waiting == 0 then return true end
  local text = table.concat(self.waiting)
  self.waiting = {}
  return host.file.append(self.path, text)
end

return tensorboard
