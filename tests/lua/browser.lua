-- A headless Chromium for tests, driven over WebDriver (chromedriver, curl).
local check = require "check"
local host = require "host"

local browser = {}
browser.__index = browser

local NEEDS = { chromium = { "chromium", "chromium-browser", "google-chrome" },
  chromedriver = { "chromedriver" }, curl = { "curl" } }

local function which(names)
  for folder in (os.getenv "PATH" or ""):gmatch "[^:]+" do
    for _, name in ipairs(names) do
      local path = folder .. "/" .. name
      if host.file.is_file(path) then return path end
    end
  end
end

-- The command's output, or nil and its errors.
local function output_of(words)
  words.stdout, words.stderr, words.stdin = "pipe", "pipe", "null"
  local p <close> = assert(host.process.spawn(words))
  local lines = {}
  while true do
    local line = p:read_line(30)
    if not line then break end
    lines[#lines + 1] = line
  end
  local status = p:wait(5) or {}
  return status.exit == 0 and table.concat(lines, "\n") or nil,
    p:read_error_line(0)
end

function browser:command(method, path, body)
  local file = self.folder .. "/request.json"
  host.file.write(file, host.json.encode(body or host.json.object {}))
  local words = { self.curl, "-s", "-S", "--max-time", "30", "-X", method,
    self.base .. path }
  if method == "POST" then
    table.move({ "-H", "Content-Type: application/json", "--data-binary",
      "@" .. file }, 1, 4, #words + 1, words)
  end
  local text, why = output_of(words)
  if not text then error("chromedriver does not answer: " .. tostring(why)) end
  local answer = assert(host.json.decode(text))
  local value = answer.value
  if type(value) == "table" and value.error and value.message then
    error(path .. ": " .. value.message:match "[^\n]*", 3)
  end
  if value == host.json.null then return nil end
  return value
end

function browser:session(path, body, method)
  return self:command(method or "POST", "/session/" .. self.id .. path, body)
end

local function port_of(driver)
  while true do
    local line, why = driver:read_line(20)
    if not line then error("chromedriver: " .. tostring(why)) end
    local port = line:match "successfully on port (%d+)"
    if port then return port end
  end
end

local function options(self, chromium)
  return { capabilities = { alwaysMatch = { browserName = "chrome",
    ["goog:loggingPrefs"] = { browser = "ALL" },
    ["goog:chromeOptions"] = { binary = chromium,
      args = host.json.array { "--headless=new", "--no-sandbox",
        "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-extensions", "--disable-background-networking",
        "--hide-scrollbars", "--force-device-scale-factor=1",
        "--user-data-dir=" .. self.folder .. "/profile" },
      prefs = { ["download.default_directory"] = self.downloads,
        ["download.prompt_for_download"] = false,
        ["profile.default_content_setting_values.automatic_downloads"] = 1,
      } } } } }
end

-- A browser with an empty profile below `folder`; leaves the case as skipped
-- where there is none.
function browser.open(folder)
  local found = {}
  for name, names in pairs(NEEDS) do
    found[name] = which(names)
    if not found[name] then
      check.skip(name .. " is not installed (chromium chromium-driver curl)")
    end
  end
  local self = setmetatable({ folder = folder, curl = found.curl,
    downloads = folder .. "/downloads" }, browser)
  host.file.mkdir(self.downloads)
  self.driver = assert(host.process.spawn { found.chromedriver, "--port=0",
    stdin = "null", stdout = "pipe", stderr = "null" })
  self.base = "http://127.0.0.1:" .. port_of(self.driver)
  self.id = self:command("POST", "/session",
    options(self, found.chromium)).sessionId
  return self
end

function browser:close()
  pcall(self.command, self, "DELETE", "/session/" .. self.id)
  self.driver:close()
end

browser.__close = browser.close

function browser:go(url) self:session("/url", { url = url }) end

-- What a function body returns in the page; arguments[0] … are the others.
function browser:js(script, ...)
  return self:session("/execute/sync", { script = script,
    args = host.json.array { ... } })
end

-- Wait until the body returns something true; gives it.
function browser:wait(script, seconds, ...)
  local ends = host.clock() + (seconds or 10)
  repeat
    local value = self:js(script, ...)
    if value then return value end
    host.sleep(.05)
  until host.clock() > ends
  error("in vain: " .. script, 2)
end

function browser:cdp(name, parameters)
  return self:session("/goog/cdp/execute", { cmd = name,
    params = host.json.object(parameters or {}) })
end

-- The page's size in pixels; `scheme` is what the system prefers.
function browser:view(width, height, scheme)
  self:cdp("Emulation.setDeviceMetricsOverride", { width = width,
    height = height, deviceScaleFactor = 1, mobile = width < 600 })
  self:cdp("Emulation.setEmulatedMedia", { features = host.json.array {
    { name = "prefers-color-scheme", value = scheme or "light" } } })
end

-- Click where the element that a selector names is, as a mouse does.
function browser:click(selector)
  local element = self:session("/element", { using = "css selector",
    value = selector })
  local _, id = next(element)
  self:js("document.querySelector(arguments[0]).scrollIntoView({ block: "
    .. "'center' })", selector)
  self:session("/element/" .. id .. "/click")
end

-- Type into the element that a selector names.
function browser:type(selector, text)
  local element = self:session("/element", { using = "css selector",
    value = selector })
  local _, id = next(element)
  self:session("/element/" .. id .. "/value", { text = text })
end

-- Move the mouse through points { x, y }; the button is held in between when
-- `drag` is given.
function browser:mouse(points, drag)
  local actions = host.json.array {}
  for i, p in ipairs(points) do
    actions[#actions + 1] = { type = "pointerMove", duration = 20, x = p[1],
      y = p[2], origin = "viewport" }
    if drag and i == 1 then
      actions[#actions + 1] = { type = "pointerDown", button = 0 }
    end
  end
  if drag then actions[#actions + 1] = { type = "pointerUp", button = 0 } end
  self:session("/actions", { actions = host.json.array { { type = "pointer",
    id = "mouse", parameters = { pointerType = "mouse" },
    actions = actions } } })
end

-- What the page complained about since it was last asked: lines of text.
function browser:complaints()
  local lines = {}
  for _, entry in ipairs(self:session("/se/log", { type = "browser" })) do
    if entry.level == "SEVERE" or entry.level == "WARNING" then
      lines[#lines + 1] = entry.message
    end
  end
  return table.concat(lines, "\n")
end

-- The text of the next file downloaded under that name.
function browser:downloaded(name)
  local path, ends = self.downloads .. "/" .. name, host.clock() + 10
  repeat
    local text = host.file.read(path)
    if text and not host.file.exists(path .. ".crdownload") then
      host.file.remove(path)
      return text
    end
    host.sleep(.05)
  until host.clock() > ends
  error(name .. " did not arrive", 2)
end

-- A picture of the page as the bytes of a PNG in base64.
function browser:picture()
  return self:session("/screenshot", nil, "GET")
end

return browser
