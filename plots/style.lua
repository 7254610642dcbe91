-- style.lua: the one palette of all charts and the small formats they share.
-- Colours are Okabe and Ito's (2008), told apart by colour-blind readers too.
local style = {}

style.ink, style.gray, style.alert = 0x222222, 0x666666, 0xB00020
style.good = 0x00704F

-- Every variant of the default matrix keeps its colour in every chart.
style.variants = {
  baseline = 0x5B6470, gqa = 0x0072B2, fp4 = 0xE69F00, gqa_fp4 = 0x009E73,
}
style.others = { 0xCC79A7, 0x56B4E9, 0xD55E00, 0x8C6BB1, 0xA6761D, 0xB2A800,
  0x882255, 0x44AA99, 0x6373D9, 0x7A8F3C, 0xE07B91, 0x2F7F86 }

-- Memory categories in the order they are piled up.
style.categories = {
  { "parameters", 0x0072B2 }, { "optimizer", 0x56B4E9 },
  { "gradients", 0xD55E00 }, { "activations", 0xE69F00 },
  { "scratch", 0xB9A6D3 }, { "data", 0x999999 },
}

-- Models are told apart by dash and marker, their variants by colour.
style.dashes = { "dotted", "dashdot", "dashed", "solid" }
style.markers = { "circle", "square", "triangle", "diamond" }

-- Give each name in `variants` (an array) a colour: { [name] = 0xRRGGBB }.
function style.colors(variants)
  local colors, next_other = {}, 0
  for _, name in ipairs(variants) do
    colors[name] = style.variants[name]
    if not colors[name] then
      colors[name] = style.others[next_other % #style.others + 1]
      next_other = next_other + 1
    end
  end
  return colors
end

-- 1234567 -> "1.23M"; three significant digits.
function style.si(value)
  local suffixes, i = { "", "k", "M", "G", "T" }, 1
  while math.abs(value) >= 999.5 and i < #suffixes do
    value, i = value / 1000, i + 1
  end
  if i == 1 and value % 1 == 0 then return string.format("%d", value) end
  return style.digits(value) .. suffixes[i]
end

-- Three significant digits, zeros at the end kept: "1.10", "10.2", "456".
function style.digits(value)
  local size = math.abs(value)
  local digits = size >= 99.95 and 0 or size >= 9.995 and 1 or 2
  return string.format("%." .. digits .. "f", value)
end

-- Seconds as "19 s", "4.5 min" or "2.1 h".
function style.duration(seconds)
  if seconds < 100 then return string.format("%.0f s", seconds) end
  if seconds < 6000 then return string.format("%.1f min", seconds / 60) end
  return string.format("%.1f h", seconds / 3600)
end

-- The unit that suits times, and gigabytes, up to `most`: name, divisor.
function style.time_unit(most)
  if most < 180 then return "s", 1 end
  if most < 10800 then return "min", 60 end
  return "h", 3600
end

function style.memory_unit(most)
  if most < 1 then return "MB", 0.001 end
  return "GB", 1
end

return style
