-- Plain-text and Markdown tables with aligned columns.
local columns = {}

local function width_of(text) return utf8.len(text) or #text end

local function pad(text, width, left)
  local fill = (" "):rep(width - width_of(text))
  return left and text .. fill or fill .. text
end

local function widths(head, rows)
  local out = {}
  for i, word in ipairs(head) do out[i] = width_of(word) end
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      out[i] = math.max(out[i] or 0, width_of(tostring(cell)))
    end
  end
  return out
end

local function line(cells, wide, left, gap)
  local out = {}
  for i = 1, #wide do
    out[i] = pad(tostring(cells[i] or ""), wide[i], left[i])
  end
  return (table.concat(out, gap):gsub("%s+$", ""))
end

local function left_set(names)
  local set = {}
  for _, i in ipairs(names or { 1 }) do set[i] = true end
  return set
end

-- Lines of text: head, rule, rows. left = positions of left-aligned columns
-- (the first by default); gap between columns: two blanks by default.
function columns.text(head, rows, left, gap)
  local wide, set = widths(head, rows), left_set(left)
  gap = gap or "  "
  local rule = {}
  for i, w in ipairs(wide) do rule[i] = ("-"):rep(w) end
  local lines = { line(head, wide, set, gap), table.concat(rule, gap) }
  for _, row in ipairs(rows) do
    lines[#lines + 1] = line(row, wide, set, gap)
  end
  return lines
end

local function escape(cell)
  return (tostring(cell):gsub("|", "\\|"):gsub("\n", " "))
end

-- A Markdown table as one string.
function columns.markdown(head, rows, left)
  local set, rule, lines = left_set(left), {}, {}
  for i = 1, #head do rule[i] = set[i] and "---" or "---:" end
  lines[1] = "| " .. table.concat(head, " | ") .. " |"
  lines[2] = "|" .. table.concat(rule, "|") .. "|"
  for _, row in ipairs(rows) do
    local cells = {}
    for i = 1, #head do
      cells[i] = escape(row[i] == nil and "" or row[i])
    end
    lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
  end
  return table.concat(lines, "\n") .. "\n"
end

return columns
