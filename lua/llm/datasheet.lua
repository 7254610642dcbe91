-- What vendors promise of devices, by what their names contain: dense bf16
-- products with f32 sums, operations a second. The measure of MFU.
local PEAKS = { { "H200", 989e12 }, { "H100", 989e12 }, { "A100", 312e12 },
  { "RTX 5090", 209.5e12 }, { "RTX 4090", 165.2e12 } }

local datasheet = {}

-- The peak of the device called `name` in `precision`; nil where none is known
-- or the precision is another.
function datasheet.peak(name, precision)
  if precision == "f32" or precision == "tf32" then return nil end
  for _, row in ipairs(PEAKS) do
    if (name or ""):find(row[1], 1, true) then return row[2] end
  end
end

return datasheet
