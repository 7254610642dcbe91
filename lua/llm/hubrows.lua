-- Rows of a dataset by the hub's rows API: pages of 100, each a JSONL file that
-- appears whole, all of one revision of the dataset.
local download = require "llm.download"
local host = require "host"
local size = require "llm.size"

local hubrows = {}

local PAGE = 100
local ANSWER_MOST = 256 << 20 -- bytes of a page

-- A name as part of a file's name.
local function safe(text)
  return (text:gsub("[^%w%._%-]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

local function escape(text)
  return (text:gsub("[^%w%._~%-]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

local function folder_of(spec, field, settings)
  return ("%s/datasets--%s/%s--%s--%s"):format(settings.cache,
    spec.repo:gsub("/", "--"), safe(spec.config), safe(spec.split),
    safe(field))
end

local function page_path(folder, offset)
  return ("%s/rows-%09d.jsonl"):format(folder, offset)
end

-- What the pages of a folder are of: { revision, rows }; nil when it is empty.
local function about(folder)
  local text = host.file.read(folder .. "/about.json")
  local note = text and host.json.decode(text)
  if type(note) == "table" and math.type(note.rows) == "integer" then
    return note
  end
end

-- --- one page ---------------------------------------------------------------

local function wrong(message) return nil, message, "refused" end

local function columns(body)
  local names = {}
  for _, f in ipairs(type(body.features) == "table" and body.features or {}) do
    names[#names + 1] = tostring(f.name)
  end
  return download.quoted(table.concat(names, ", "))
end

-- The page's lines of JSONL, with `field` alone; how many rows came and how
-- many the server had cut short (these are left out).
local function lines_of(body, field, url)
  local lines, cut = {}, 0
  for _, entry in ipairs(body.rows) do
    local row = type(entry) == "table" and entry.row
    if type(row) ~= "table" then return wrong(url .. ": a row is no object") end
    local short = false
    for _, name in ipairs(type(entry.truncated_cells) == "table"
      and entry.truncated_cells or {}) do
      short = short or name == field
    end
    local text = row[field]
    if text == nil then
      return wrong(("%s: no field %q; the columns are: %s (data.field=NAME)")
        :format(url, field, columns(body)))
    elseif short then
      cut = cut + 1
    elseif type(text) == "string" then
      lines[#lines + 1] = host.json.encode { [field] = text } .. "\n"
    elseif text ~= host.json.null then
      return wrong(("%s: field %q is not text"):format(url, field))
    end
  end
  return table.concat(lines), #body.rows, cut
end

-- Fetch a page: { text, count, cut, rows (of all), revision }; or nil,
-- message, word, status.
local function fetch_page(spec, offset, field, settings, label)
  local url = ("%s/rows?dataset=%s&config=%s&split=%s&offset=%d&length=%d")
    :format(settings.rows, escape(spec.repo), escape(spec.config),
      escape(spec.split), offset, PAGE)
  local answer, message, word, status = download.get { url = url,
    token = settings.token, say = settings.say, idle = settings.idle,
    backoff = settings.backoff, attempts = settings.attempts,
    most = ANSWER_MOST, label = label, quiet = true,
    authorities = settings.authorities, reached = settings.reached }
  if not answer then return nil, message, word, status end
  settings.reached = true
  local body, why = host.json.decode(answer.body)
  if type(body) ~= "table" or type(body.rows) ~= "table" then
    return wrong(("%s: the answer is no page of rows (%s%s)"):format(url,
      download.quoted(answer.headers["content-type"] or "no type"),
      body == nil and why and "; " .. why or ""))
  end
  local text, count, cut = lines_of(body, field, url)
  if not text then return nil, count, cut end
  local rows = math.tointeger(body.num_rows_total) or offset + count
  return { text = text, count = count, cut = cut, rows = rows,
    revision = answer.headers["x-revision"] or "unnamed, of " .. rows }
end

-- --- all pages --------------------------------------------------------------

local function write(path, text, failed)
  local ok, message, code = host.file.write(path, text)
  if not ok then failed(message, code) end
end

-- Start the folder again, for the revision that a page is of.
local function begin(folder, page, spec, failed)
  for _, make in ipairs { host.file.remove_tree, host.file.mkdir } do
    local ok, message, code = make(folder)
    if not ok then failed(message, code) end
  end
  local note = { revision = page.revision, rows = page.rows,
    source = spec.name }
  write(folder .. "/about.json", host.json.encode(note), failed)
  return note
end

-- "12k rows, 41 MB (12 %, 8 min 05 s left)": of the bytes or rows wanted, or
-- of all there are.
local function show(run, note)
  local got, want = run.got, run.want
  local share, goal = got.offset / math.max(note.rows, 1), ""
  if want.bytes then share = math.max(share, got.bytes / want.bytes) end
  if want.rows then share = math.max(share, got.rows / want.rows) end
  if not run.from then
    run.from, run.began = share, host.clock() -- what was here took no time
  elseif share < 1 and share > run.from then
    goal = (" (%.0f %%, %s left)"):format(100 * share, size.seconds((1 - share)
      * (host.clock() - run.began) / (share - run.from)))
  end
  host.terminal.progress(("%s: %s rows, %s%s"):format(run.spec.name,
    size.count(got.rows), size.bytes(got.bytes), goal))
end

-- Whether what is there is enough.
local function enough(got, want, note)
  return note ~= nil and (got.offset >= note.rows
    or (want.rows and got.rows >= want.rows)
    or (want.bytes and got.bytes >= want.bytes)) or false
end

-- One page more: from the folder, or from the hub. Gives the note, and true
-- when the dataset changed meanwhile.
local function one_page(run, note)
  local got, path = run.got, page_path(run.folder, run.got.offset)
  local count = PAGE
  if not (note and host.file.is_file(path)) then
    if run.settings.offline then
      run.failed(run.spec.name .. " is not in the cache as far as it is "
        .. "wanted, and HF_HUB_OFFLINE is set", "offline")
    end
    local page, message, word, status = fetch_page(run.spec, got.offset,
      run.field, run.settings, run.spec.name)
    if not page then run.failed(message, word, status) end
    if not note then
      note = begin(run.folder, page, run.spec, run.failed)
    elseif note.revision ~= page.revision then
      return note, true
    end
    write(path, page.text, run.failed)
    got.cut, count = got.cut + page.cut, page.count
    got.fetched = got.fetched + 1
    if count < PAGE and got.offset + count < note.rows then
      note.rows = got.offset + count -- fewer than it said
      write(run.folder .. "/about.json", host.json.encode(note), run.failed)
    end
  end
  got.offset, got.files = got.offset + PAGE, got.files + 1
  got.rows = math.min(got.rows + count, note.rows)
  got.bytes = got.bytes + (host.file.size(path) or 0)
  if got.fetched > 0 then show(run, note) end
  return note
end

local function fresh()
  return { offset = 0, rows = 0, bytes = 0, cut = 0, files = 0, fetched = 0 }
end

-- The rows wanted, of one revision: as many pages as it takes.
function hubrows.get(spec, want, settings)
  local field, failed = want.field or "text", settings.failed
  local run = { spec = spec, field = field, settings = settings, got = fresh(),
    want = want,
    folder = folder_of(spec, field, settings), failed = failed }
  local note, restarts = about(run.folder), 0
  while not enough(run.got, want, note) do
    local changed
    note, changed = one_page(run, note)
    if changed then
      restarts = restarts + 1
      if restarts > 2 then
        failed(spec.name .. " changes on the hub while it is fetched", "io")
      end
      if settings.say then
        settings.say(spec.name .. " has changed on the hub; its rows are "
          .. "fetched again")
      end
      host.file.remove_tree(run.folder)
      run.got, note = fresh(), nil
    end
  end
  host.terminal.progress()
  return { source = run.folder .. "/rows-*.jsonl", files = run.got.files,
    revision = note.revision, rows = run.got.rows, bytes = run.got.bytes,
    cut = run.got.cut, fetched = run.got.fetched }
end

-- How many rows are here, in words; nil: none.
function hubrows.present(spec, settings)
  local folder = folder_of(spec, settings.field or "text", settings)
  local note = about(folder)
  local pages = note and host.file.glob(folder .. "/rows-*.jsonl") or {}
  if #pages == 0 then return nil end
  return ("%s of %s rows in the cache"):format(
    size.count(math.min(#pages * PAGE, note.rows)), size.count(note.rows))
end

return hubrows
