-- A PNG decoder for tests: RGB with 8 bits, not interlaced, checksums checked.
-- It shares no code with the encoder under test.
local png = {}

local function u32(s, at) return (string.unpack(">I4", s, at)) end

local crc_table = {}
for n = 0, 255 do
  local c = n
  for _ = 1, 8 do
    c = c & 1 == 1 and 0xEDB88320 ~ (c >> 1) or c >> 1
  end
  crc_table[n] = c
end

local function crc32(s)
  local c = 0xFFFFFFFF
  for i = 1, #s do c = crc_table[(c ~ s:byte(i)) & 255] ~ (c >> 8) end
  return c ~ 0xFFFFFFFF
end

-- ------------------------------------------------------- inflate (RFC 1951)

local function bit_reader(s, at)
  local held, count = 0, 0
  local function bits(n)
    while count < n do
      held = held | (assert(s:byte(at), "data ends early") << count)
      at, count = at + 1, count + 8
    end
    local value = held & ((1 << n) - 1)
    held, count = held >> n, count - n
    return value
  end
  local function align() held, count = 0, 0 end
  return bits, align
end

-- Canonical Huffman codes from lengths (0-based symbols): by length, by code.
local function huffman(lengths, n)
  local counts, next_code, code = {}, {}, 0
  for i = 0, 15 do counts[i] = 0 end
  for i = 0, n - 1 do counts[lengths[i]] = counts[lengths[i]] + 1 end
  counts[0] = 0
  for i = 1, 15 do
    code = (code + counts[i - 1]) << 1
    next_code[i] = code
  end
  local symbols = {}
  for i = 0, n - 1 do
    local length = lengths[i]
    if length > 0 then
      symbols[length << 16 | next_code[length]] = i
      next_code[length] = next_code[length] + 1
    end
  end
  return symbols
end

local function symbol(bits, codes)
  local code = 0
  for length = 1, 15 do
    code = code << 1 | bits(1)
    local found = codes[length << 16 | code]
    if found then return found end
  end
  error("no such Huffman code")
end

local function series(base, extras)
  local list = {}
  for i, extra in ipairs(extras) do
    list[i - 1] = { base, extra }
    base = base + (1 << extra)
  end
  return list
end

local LENGTHS = series(3, { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3,
  3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5 })
LENGTHS[28] = { 258, 0 }
local DISTANCES = series(1, { 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7,
  7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13 })
local ORDER = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1,
  15 }

local function fixed_codes()
  local lengths, distances = {}, {}
  for i = 0, 287 do
    lengths[i] = i < 144 and 8 or i < 256 and 9 or i < 280 and 7 or 8
  end
  for i = 0, 29 do distances[i] = 5 end
  return huffman(lengths, 288), huffman(distances, 30)
end

local function code_lengths(bits, codes, n)
  local list, i = {}, 0
  while i < n do
    local s = symbol(bits, codes)
    local value, times = s, 1
    if s == 16 then value, times = list[i - 1], 3 + bits(2)
    elseif s == 17 then value, times = 0, 3 + bits(3)
    elseif s == 18 then value, times = 0, 11 + bits(7) end
    for _ = 1, times do list[i], i = value, i + 1 end
  end
  return list
end

local function dynamic_codes(bits)
  local literals, distances, lengths = bits(5) + 257, bits(5) + 1, {}
  local given = bits(4) + 4
  for i = 0, 18 do lengths[i] = 0 end
  for i = 1, given do lengths[ORDER[i]] = bits(3) end
  local all = code_lengths(bits, huffman(lengths, 19), literals + distances)
  local far = {}
  for i = 0, distances - 1 do far[i] = all[literals + i] end
  return huffman(all, literals), huffman(far, distances)
end

local function coded_block(bits, out, codes, far)
  while true do
    local s = symbol(bits, codes)
    if s == 256 then return end
    if s < 256 then
      out[#out + 1] = s
    else
      local length = LENGTHS[s - 257]
      local n = length[1] + bits(length[2])
      local distance = DISTANCES[symbol(bits, far)]
      local back = distance[1] + bits(distance[2])
      for _ = 1, n do out[#out + 1] = out[#out + 1 - back] end
    end
  end
end

local function stored_block(bits, align, out)
  align()
  local n = bits(16)
  assert(bits(16) == n ~ 0xFFFF, "stored block's length is damaged")
  for _ = 1, n do out[#out + 1] = bits(8) end
end

-- zlib data -> array of bytes; the Adler checksum must hold.
local function inflate(s)
  assert(s:byte(1) & 15 == 8 and (s:byte(1) * 256 + s:byte(2)) % 31 == 0)
  local bits, align = bit_reader(s, 3)
  local out, last = {}, 0
  while last == 0 do
    last = bits(1)
    local kind = bits(2)
    if kind == 0 then stored_block(bits, align, out)
    elseif kind == 1 then coded_block(bits, out, fixed_codes())
    else coded_block(bits, out, dynamic_codes(bits)) end
  end
  local a, b = 1, 0
  for _, byte in ipairs(out) do
    a = (a + byte) % 65521
    b = (b + a) % 65521
  end
  assert(u32(s, #s - 3) == b << 16 | a, "Adler checksum differs")
  return out
end

-- ------------------------------------------------------------------- pixels

local function paeth(a, b, c)
  local p = a + b - c
  local pa, pb, pc = math.abs(p - a), math.abs(p - b), math.abs(p - c)
  return pa <= pb and pa <= pc and a or pb <= pc and b or c
end

-- Undo the row filters in place; gives rows of 0-based bytes.
local function unfilter(data, width, height)
  local stride, rows = width * 3, {}
  assert(#data == height * (stride + 1), "wrong number of bytes")
  for y = 0, height - 1 do
    local kind, row, up = data[y * (stride + 1) + 1], {}, rows[y - 1] or {}
    for i = 0, stride - 1 do
      local v = data[y * (stride + 1) + 2 + i]
      local a, b, c = row[i - 3] or 0, up[i] or 0, up[i - 3] or 0
      if kind == 1 then v = v + a
      elseif kind == 2 then v = v + b
      elseif kind == 3 then v = v + (a + b) // 2
      elseif kind == 4 then v = v + paeth(a, b, c) end
      row[i] = v & 255
    end
    rows[y] = row
  end
  return rows
end

-- { width =, height = } of a PNG, its signature and chunks checked, plus the
-- compressed `data`.
function png.open(s)
  assert(s:sub(1, 8) == "\x89PNG\r\n\x1A\n", "not a PNG")
  local at, image, data = 9, nil, {}
  while true do
    local size, kind = u32(s, at), s:sub(at + 4, at + 7)
    local body = s:sub(at + 8, at + 7 + size)
    assert(u32(s, at + 8 + size) == crc32(kind .. body), kind .. ": bad CRC")
    at = at + 12 + size
    if kind == "IHDR" then
      assert(body:sub(9) == "\8\2\0\0\0", "not plain 8-bit RGB")
      image = { width = u32(body, 1), height = u32(body, 5) }
    elseif kind == "IDAT" then
      data[#data + 1] = body
    elseif kind == "IEND" then
      break
    end
  end
  assert(at == #s + 1, "bytes after the end")
  image.data = table.concat(data)
  return image
end

-- All of it: .pixel(x, y) -> 0xRRGGBB, 0-based; .colors() -> color -> count.
function png.decode(s)
  local image = png.open(s)
  local rows = unfilter(inflate(image.data), image.width, image.height)
  function image.pixel(x, y)
    local row = rows[y]
    return row[3 * x] << 16 | row[3 * x + 1] << 8 | row[3 * x + 2]
  end
  function image.colors()
    local counts = {}
    for y = 0, image.height - 1 do
      for x = 0, image.width - 1 do
        local color = image.pixel(x, y)
        counts[color] = (counts[color] or 0) + 1
      end
    end
    return counts
  end
  return image
end

return png
