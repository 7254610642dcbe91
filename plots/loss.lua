-- loss.lua: loss curves against tokens and against time. Colour tells the
-- variant, dash and marker the model.
local style = require "plots.style"
local tidy = require "plots.tidy"

local BINS, FEW = 120, 6

-- Add a record's numbers to the sums of its step.
local function add(sums, record)
  local step = tidy.number(record, "step")
  if not step then return end
  local sum = sums[step] or { step = step, count = {} }
  sums[step] = sum
  for _, key in ipairs{ "tokens", "seconds", "loss", "val_loss" } do
    local value = tidy.number(record, key)
    if value then
      sum[key] = (sum[key] or 0) + value
      sum.count[key] = (sum.count[key] or 0) + 1
    end
  end
end

-- The mean of several curves, at the steps that all of them have.
local function mean_curve(list)
  local sums, steps, mean = {}, {}, {}
  for _, curve in ipairs(list) do
    for _, record in ipairs(curve) do add(sums, record) end
  end
  for step in pairs(sums) do steps[#steps + 1] = step end
  table.sort(steps)
  for _, step in ipairs(steps) do
    local record = { step = step }
    for key, n in pairs(sums[step].count) do
      -- A step that was evaluated has two records: their tokens and seconds
      -- count twice.
      if n % #list == 0 then record[key] = sums[step][key] / n end
    end
    mean[#mean + 1] = record
  end
  return mean
end

-- A cell's curve: of its only run, or the mean over those that ended well (of
-- all when none did).
local function curve_of(cell, curves)
  local ok, all = {}, {}
  for _, run in ipairs(cell.runs) do
    local curve = curves[run.name]
    if type(curve) == "table" and #curve > 0 then
      all[#all + 1] = curve
      if run.ok then ok[#ok + 1] = curve end
    end
  end
  local list = #ok > 0 and ok or all
  return #list > 1 and mean_curve(list) or list[1]
end

-- The points of one curve that carry `field`: arrays of tokens, seconds, loss.
local function points(curve, field)
  local list = { tokens = {}, seconds = {}, loss = {} }
  for _, record in ipairs(type(curve) == "table" and curve or {}) do
    local loss = tidy.number(record, field)
    local tokens = tidy.number(record, "tokens")
    local seconds = tidy.number(record, "seconds")
    if loss and (tokens or seconds) then
      local n = #list.loss + 1
      list.tokens[n], list.seconds[n] = tokens or false, seconds or false
      list.loss[n] = loss
    end
  end
  return list
end

local function mean_of(values, from, to)
  local sum, n = 0, 0
  for i = from, to do
    if values[i] then sum, n = sum + values[i], n + 1 end
  end
  return n > 0 and sum / n or false
end

-- Means over BINS stretches of equal length: a noisy curve as a readable one.
local function binned(list)
  local n = #list.loss
  if n <= BINS then return list end
  local out = { tokens = {}, seconds = {}, loss = {} }
  for b = 1, BINS do
    local from, to = (b - 1) * n // BINS + 1, b * n // BINS
    for _, key in ipairs{ "tokens", "seconds", "loss" } do
      out[key][b] = mean_of(list[key], from, to)
    end
  end
  return out
end

-- A colour mixed with white: for the training loss behind the validation's.
local function pale(color)
  local mixed = 0
  for shift = 16, 0, -8 do
    local part = (color >> shift) & 255
    mixed = mixed | ((255 - (255 - part) * 45 // 100) << shift)
  end
  return mixed
end

local function scaled(values, divisor)
  local out = {}
  for i, value in ipairs(values) do out[i] = value and value / divisor end
  return out
end

local function most_seconds(curves)
  local most = 0
  for _, c in ipairs(curves) do
    for _, list in ipairs{ c.train, c.val } do
      for _, s in ipairs(list.seconds) do most = math.max(most, s or 0) end
    end
  end
  return most
end

local function collect(view, curves)
  local list, index, colors = {}, {}, style.colors(view.variants)
  for i, model in ipairs(view.models) do index[model] = i end
  for _, cell in ipairs(view.cells) do
    local i, curve = index[cell.model], curve_of(cell, curves)
    local c = {
      name = cell.model .. "_" .. cell.variant, color = colors[cell.variant],
      dash = style.dashes[(#style.dashes - i) % #style.dashes + 1],
      marker = style.markers[(i - 1) % #style.markers + 1],
      train = binned(points(curve, "loss")),
      val = points(curve, "val_loss"),
    }
    if #c.train.loss + #c.val.loss > 0 then list[#list + 1] = c end
  end
  return list
end

-- Training losses behind, validation losses in front; with many curves only
-- the latter, unless there are none.
local function series(curves, key, divisor)
  local behind, front = {}, {}
  for _, c in ipairs(curves) do
    local alone = #c.val.loss == 0
    if alone or #curves <= FEW then
      behind[#behind + 1] = {
        name = c.name .. " (training)", width = 1.4,
        color = alone and c.color or pale(c.color),
        dash = alone and c.dash or nil,
        x = scaled(c.train[key], divisor), y = c.train.loss,
      }
    end
    if not alone then
      front[#front + 1] = {
        name = c.name, color = c.color, dash = c.dash, marker = c.marker,
        width = 2, x = scaled(c.val[key], divisor), y = c.val.loss,
      }
    end
  end
  table.move(front, 1, #front, #behind + 1, behind)
  return behind
end

local function legend(view)
  local list, colors = {}, style.colors(view.variants)
  for _, variant in ipairs(view.variants) do
    list[#list + 1] = { name = variant, color = colors[variant], line = true }
  end
  for i, model in ipairs(view.models) do
    list[#list + 1] = {
      name = model, color = style.gray, line = true,
      dash = style.dashes[(#style.dashes - i) % #style.dashes + 1],
      marker = style.markers[(i - 1) % #style.markers + 1],
    }
  end
  return list
end

local function what_is_drawn(curves)
  local validated = false
  for _, c in ipairs(curves) do validated = validated or #c.val.loss > 0 end
  if not validated then return "training loss" end
  return #curves <= FEW and "validation loss, training loss in pale"
    or "validation loss"
end

return function(view, options)
  local curves = collect(view, options.curves or {})
  local unit, divisor = style.time_unit(most_seconds(curves))
  local y = { label = "Loss (nats per token)", log = true }
  local empty = "no data: no curves were recorded"
  return {
    title = "Loss curves", columns = 2, legend = legend(view),
    subtitle = what_is_drawn(curves) .. " \u{B7} " .. tidy.setting(view),
    note = tidy.caveats(view, "drawn at the steps that all of them have"),
    panels = {
      { kind = "lines", title = "Against tokens", y = y, empty = empty,
        x = { label = "Tokens trained on", format = "si" },
        series = series(curves, "tokens", 1) },
      { kind = "lines", title = "Against time", y = y, empty = empty,
        x = { label = "Training time (" .. unit .. ")" },
        series = series(curves, "seconds", divisor) },
    },
  }
end
