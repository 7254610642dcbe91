-- Sizes, counts and times as people write and read them.
-- GB = 10^9 and GiB = 2^30, as written; what is printed is decimal.
local size = {}

local UNITS = {
  [""] = 1, B = 1, KB = 1e3, MB = 1e6, GB = 1e9, TB = 1e12,
  KIB = 2 ^ 10, MIB = 2 ^ 20, GIB = 2 ^ 30, TIB = 2 ^ 40,
}

-- Bytes of "24GB", "1.5GiB", "512 MB", "1000" or a number; nil when malformed.
function size.parse(text)
  if type(text) == "number" then
    return text >= 0 and math.floor(text) or nil
  end
  local number, unit = tostring(text):match("^%s*([%d.]+)%s*(%a*)%s*$")
  local factor = unit and UNITS[unit:upper()]
  local value = tonumber(number)
  if not (factor and value) then return nil end
  return math.floor(value * factor + .5)
end

local function scaled(value, steps, digits)
  for _, step in ipairs(steps) do
    if math.abs(value) >= step[1] then
      return string.format("%." .. (step[3] or digits) .. "f%s",
        value / step[1], step[2])
    end
  end
  return string.format("%d%s", math.floor(value + .5), steps.last or "")
end

local BYTES = { { 1e12, " TB" }, { 1e9, " GB" }, { 1e6, " MB", 1 },
  { 1e3, " kB", 0 }, last = " B" }
local COUNTS = { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" },
  { 1e3, "k", 1 } }

-- "1.23 GB"; "?" for nil.
function size.bytes(n) return n and scaled(n, BYTES, 2) or "?" end

-- "1.23M"; "?" for nil.
function size.count(n) return n and scaled(n, COUNTS, 2) or "?" end

-- Bytes as a number of GB (10^9), or nil.
function size.gb(n) return n and n / 1e9 or nil end

-- "3.2 s", "4 min 05 s", "2 h 10 min".
function size.seconds(s)
  if not s then return "?" end
  if s < 60 then return string.format("%.1f s", s) end
  local whole = math.floor(s + .5)
  if whole < 3600 then
    return string.format("%d min %02d s", whole // 60, whole % 60)
  end
  return string.format("%d h %02d min", whole // 3600, whole % 3600 // 60)
end

-- "+12.3 %", "0.0 %", or "?" for nil. The argument is a ratio: .123 is
-- +12.3 %.
function size.change(ratio)
  if not ratio then return "?" end
  return (string.format("%+.1f %%", 100 * ratio):gsub("^[+-]0%.0 ", "0.0 "))
end

-- "45 %" of a share between 0 and 1.
function size.share(share)
  return share and string.format("%.0f %%", 100 * share) or "?"
end

return size
