-- A run's measurements, appended by the child: metrics.jsonl, metrics.csv, and
-- TensorBoard's event file.
local host = require "host"
local tensorboard = require "llm.tensorboard"

local metrics = {}
metrics.__index = metrics

local COLUMNS = { "step", "tokens", "seconds", "loss", "accuracy",
  "perplexity", "lr", "grad_norm", "tokens_per_second", "memory",
  "val_loss", "val_accuracy", "val_perplexity", "val_tokens", "loss_scale" }

local function csv(record)
  local cells = {}
  for i, key in ipairs(COLUMNS) do
    local v = record[key]
    cells[i] = type(v) == "number" and v == v and math.abs(v) < math.huge
      and ("%.9g"):format(v) or ""
  end
  return table.concat(cells, ",") .. "\n"
end

local function read(path)
  local records = {}
  for line in (host.file.read(path) or ""):gmatch "[^\n]+" do
    local record = host.json.decode(line)
    if type(record) ~= "table" then break end
    records[#records + 1] = record
  end
  return records
end

-- All records of a run folder, in order; {} when there are none.
function metrics.read(folder) return read(folder .. "/metrics.jsonl") end

local function must(ok, message, code)
  if not ok then
    error(setmetatable({ code = code or "disk", message = message },
      { __tostring = function(e) return e.message end }), 0)
  end
end

-- Metrics of the run in `folder`, keeping what was recorded up to `step`.
-- events: for TensorBoard, too.
function metrics.open(folder, step, events)
  local self = setmetatable({ folder = folder, json = {}, csv = {} }, metrics)
  local json, rows = {}, { table.concat(COLUMNS, ",") .. "\n" }
  for _, record in ipairs(step > 0 and metrics.read(folder) or {}) do
    if record.step <= step then
      json[#json + 1] = host.json.encode(record) .. "\n"
      rows[#rows + 1] = csv(record)
    end
  end
  must(host.file.write(folder .. "/metrics.jsonl", table.concat(json)))
  must(host.file.write(folder .. "/metrics.csv", table.concat(rows)))
  if events then
    local board, message, code = tensorboard.open(folder, step)
    must(board, message, code)
    self.board = board
  end
  return self
end

function metrics:add(record)
  self.json[#self.json + 1] = host.json.encode(record) .. "\n"
  self.csv[#self.csv + 1] = csv(record)
  if self.board then self.board:add(record) end
end

-- Everything added so far reaches the files. Raises (code disk) when not.
function metrics:flush()
  if #self.json == 0 then return end
  must(host.file.append(self.folder .. "/metrics.jsonl",
    table.concat(self.json)))
  must(host.file.append(self.folder .. "/metrics.csv",
    table.concat(self.csv)))
  if self.board then must(self.board:flush()) end
  self.json, self.csv = {}, {}
end

metrics.must = must

return metrics
