-- The build and the set-up as a user meets them: what a second make does, what
-- a touched list rebuilds, what is said of absent parts, and an installation.
local check = require "check"

local scratch = os.getenv("TMPDIR") or "/tmp"
local variant = (os.getenv("LLMHOST") or ""):match("build/(%w+)/llmhost")
  or "release"

-- Run a shell command: its output (both streams) and its exit code.
local function run(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1"))
  local text = pipe:read("a")
  local _, _, code = pipe:close()
  return text, code
end

local function make(words)
  return run("make --no-print-directory VARIANT=" .. variant .. " " .. words)
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- The words of `text` that match, as a sorted list without repeats.
local function matches(text, pattern)
  local seen, list = {}, {}
  for word in text:gmatch(pattern) do
    if not seen[word] then list[#list + 1] = word end
    seen[word] = true
  end
  table.sort(list)
  return list
end

-- The items of `list` that `all` holds too, in order.
local function only(list, all)
  local known, kept = {}, {}
  for _, item in ipairs(all) do known[item] = true end
  for _, item in ipairs(list) do
    if known[item] then kept[#kept + 1] = item end
  end
  return kept
end

check.case("a second make does nothing", function()
  local text, code = make("-q all")
  check.equal(code, 0, text)
end)

-- The dependency files of the objects of `all`, as arguments of grep.
local DEPENDENCIES = ("$(find build/%s/kernels build/%s/host -name '*.d')")
  :format(variant, variant)

check.case("touching ops.def rebuilds what includes it and nothing else",
  function()
    -- A file reaches the list by paths such as host/bind/../../kernels/core/:
    -- make takes each spelling for a file of its own.
    local spellings = matches((run("grep -ho '[^ ]*core/ops[.]def' "
      .. DEPENDENCIES)), "(%S+)\n")
    local touched = " -W " .. table.concat(spellings, " -W ")
    local rebuilt = matches((make("-n all" .. touched)), "%-c %-o (%S+%.o)")
    local depends = matches((run("grep -l 'core/ops[.]def' " .. DEPENDENCIES
      .. " | sed 's/[.]d$/.o/'")), "(%S+)\n")
    local every = matches((make("-n -B all")), "%-c %-o (%S+%.o)")
    depends = only(depends, every) -- a source may have gone, not its object
    check.equal(table.concat(rebuilt, " "), table.concat(depends, " "))
    check.truthy(#rebuilt > 0, "nothing would be rebuilt")
    check.truthy(#rebuilt < #every, "everything would be rebuilt")
  end)

check.case("changed flags rebuild everything", function()
  local every = matches((make("-n -B all")), "%-c %-o (%S+%.o)")
  local again = matches((make("-n all $(printf -- '-W %s ' build/" .. variant
    .. "/flags*)")), "%-c %-o (%S+%.o)")
  check.equal(table.concat(again, " "), table.concat(every, " "))
end)

check.case("clang takes the CPU's operators, for `make fuzz`", function()
  if select(2, run("command -v clang")) ~= 0 then check.skip "no clang" end
  local text = make("-n -W kernels/cpu/level.c VARIANT=fuzz CC=clang CUDA= all")
  local lines = 0
  for line in text:gsub("\\\n", ""):gmatch "clang [^\n]* %S+/level%.c" do
    lines = lines + 1
    local said, code = run((line:gsub(" %-MMD %-MP ", " ")
      :gsub(" %-c ", " -fsyntax-only ")))
    check.equal(code, 0, said)
  end
  check.truthy(lines > 0, text)
end)

-- What make would compile one file for, "sm_90a …". In a build folder of its
-- own: make notes the flags it was called with, even under -n.
local function architectures(words)
  if variant ~= "release" then check.skip "of the release build alone" end
  local build = scratch .. "/gpu"
  local text = run(("unset MAKEFLAGS GPU_ARCH; " -- as the tests were called
    .. "PATH=%s:$PATH make --no-print-directory -n BUILD=%s "
    .. "HAVE_CUDA=nvcc CUDA_KNOWN='75 80 86 90 120' %s "
    .. "%s/kernels/cuda/about.cu.o"):format(scratch, build, words, build))
  return table.concat(matches(text, "code=([%w_]+)"), " "), text
end

-- An nvidia-smi that names these cards, or fails.
local function nvidia_smi(capabilities)
  local path = scratch .. "/nvidia-smi"
  local file = assert(io.open(path, "w"))
  file:write("#!/bin/sh\n", capabilities and "printf '" .. capabilities .. "'"
    or "exit 9", "\n")
  file:close()
  run("chmod +x " .. path)
end

check.case("GPU_ARCH: the GPU here, all, or what is named", function()
  local here, nowhere = " GPU_FILES=/dev/null", " GPU_FILES=/dev/nothing"
  local all = "compute_120 sm_120 sm_80 sm_86 sm_90a"
  nvidia_smi "8.6\\n8.6\\n"
  for words, want in pairs {
    [""] = "sm_86", ["GPU_ARCH=auto"] = "sm_86", ["GPU_ARCH=native"] = "sm_86",
    ["GPU_ARCH=all"] = all, ["GPU_ARCH=90"] = "sm_90a",
    ["GPU_ARCH='80 90'"] = "compute_90 sm_80 sm_90a" } do
    local got, text = architectures(words .. here)
    check.equal(got, want, words .. "\n" .. text)
  end
  check.equal(architectures("GPU_ARCH=auto" .. nowhere), "sm_90a")
  check.equal(architectures("GPU_ARCH=native" .. nowhere), "sm_86")
  nvidia_smi(nil)
  check.equal(architectures("GPU_ARCH=native" .. here), all)
end)

check.case("a GPU is a driver's file, or WSL's", function()
  local text = run "make -p -n help"
  check.truthy(text:find("\nGPU_FILES := /dev/nvidiactl /dev/dxg\n", 1, true),
    text:match "\nGPU_FILES[^\n]*")
end)

check.case("make help lists the commands of the README", function()
  local text = make("help")
  for _, word in ipairs { "sweep", "test", "install", "bench", "lint" } do
    check.truthy(text:find("\n  " .. word .. " +%a"), word .. " not in:\n"
      .. text)
  end
end)

check.case("a missing compiler is named with its package", function()
  local out = scratch .. "/config.mk"
  local text, code = run("CC=/nonexistent/cc .ci/setup configure " .. out)
  check.equal(code, 1)
  check.truthy(text:find("llmhost cannot be built here; missing: gcc", 1,
    true), text)
  check.truthy(text:find("`make deps` installs them.", 1, true), text)
  check.truthy(not exists(out), "a configuration was written all the same")
end)

-- A folder of pkg-config files that knows the required parts alone.
local REQUIRED = { "lua5.4 lua-5.4 lua54 lua", "libpcre2-8",
  "openblas blis flexiblas" }

check.case("an absent optional part is reported with its cost", function()
  local folder = scratch .. "/pc"
  run("mkdir -p " .. folder)
  for _, names in ipairs(REQUIRED) do
    for name in names:gmatch("%S+") do
      run(("pkg-config --exists %s && cp $(pkg-config --variable=pcfiledir %s)"
        .. "/%s.pc %s"):format(name, name, name, folder))
    end
  end
  local out = scratch .. "/config.mk"
  local text, code = run("PKG_CONFIG_PATH= PKG_CONFIG_LIBDIR=" .. folder
    .. " .ci/setup configure " .. out)
  check.equal(code, 0, text)
  check.truthy(text:find("zlib        absent: no .gz corpora (zlib1g-dev)", 1,
    true), text)
  check.truthy(text:find("curl        absent: no data from the hub", 1, true),
    text)
  local config = assert(io.open(out)):read("a")
  check.truthy(config:find("HAVE_BLAS := ", 1, true), config)
  check.truthy(not config:find("ZLIB", 1, true), config)
end)

check.case("the reference BLAS is taken only when asked for", function()
  local folder, out = scratch .. "/netlib", scratch .. "/netlib.mk"
  run("mkdir -p " .. folder)
  for i, names in ipairs(REQUIRED) do
    for name in names:gmatch("%S+") do
      run(("pkg-config --exists %s && cp $(pkg-config --variable=pcfiledir %s)"
        .. "/%s.pc %s/%s.pc"):format(name, name, name, folder,
        i == #REQUIRED and "blas-netlib" or name))
    end
  end
  local configure = "PKG_CONFIG_PATH= PKG_CONFIG_LIBDIR=" .. folder
    .. " .ci/setup configure " .. out
  local text, code = run(configure)
  check.equal(code, 1, text)
  check.truthy(text:find("missing: libopenblas-dev", 1, true), text)
  text, code = run("BLAS=blas-netlib " .. configure)
  check.equal(code, 0, text)
  check.truthy(text:find("blas +blas%-netlib"), text)
end)

check.case("the list of packages is well formed", function()
  local kinds = { build = true, plots = true, test = true, optional = true,
    browser = true }
  local rows = 0
  for line in io.lines("tests/packages") do
    if not line:find("^#") then
      local kind, name, packages, how, cost =
        line:match("^(%w+)|(%u[%u%d]*)|([^|]+)|(%w+ [^|]+)|([^|]+)$")
      check.truthy(name and packages and how and cost, line)
      check.truthy(kinds[kind], line)
      rows = rows + 1
    end
  end
  check.truthy(rows > 10, "only " .. rows .. " rows")
end)

-- One installation for the cases below, moved to another place as packagers do.
local root = scratch .. "/root"
local installed = root .. "/opt/llm/bin/llmhost"

check.case("make install puts the program and its files in place", function()
  local text, code = make("install PREFIX=/opt/llm DESTDIR=" .. root)
  check.equal(code, 0, text)
  check.truthy(exists(installed), text)
  for _, name in ipairs { "llmhost/experiments/sweep.lua", "man/man1/llmhost.1",
    "bash-completion/completions/llmhost", "zsh/site-functions/_llmhost",
    "fish/vendor_completions.d/llmhost.fish" } do
    check.truthy(exists(root .. "/opt/llm/share/" .. name), name .. "\n"
      .. text)
  end
end)

check.case("make install says which GPUs it has code for", function()
  if not exists("build/" .. variant .. "/llmhost_cuda.so") then
    check.skip "built without CUDA"
  end
  local words = "-n install PREFIX=/opt/llm DESTDIR=" .. root .. " BUILD="
    .. scratch .. "/gpu GPU_FILES=/dev/nothing GPU_ARCH="
  local text = make(words .. "auto")
  check.truthy(text:find("installed for: 90 (no GPU is here; GPU_ARCH=all ", 1,
    true), text)
  text = make(words .. "all")
  check.truthy(text:find("installed for: 80 [%d ]+\""), text)
end)

check.case("the installed program runs from another folder", function()
  local text, code = run("cd / && env -u LUA_PATH " .. installed
    .. " -e 'assert(require \"host\"); print(_VERSION)'")
  check.equal(code, 0, text)
  check.equal(text, "Lua 5.4\n")
end)

check.case("the installed program finds its chart module", function()
  if not exists("build/" .. variant .. "/chart.so") then
    check.skip("built without libplot or stb")
  end
  local text, code = run("cd / && env -u LUA_PATH " .. installed
    .. " -e 'print(package.searchpath(\"chart\", package.cpath),"
    .. " type(require \"chart\"))'")
  check.equal(code, 0, text)
  check.truthy(text:find("/lib/llmhost/chart.so\ttable", 1, true), text)
end)

check.case("the installed program finds the CUDA plugin", function()
  local plugin = root .. "/opt/llm/lib/llmhost/llmhost_cuda.so"
  if not exists(plugin) then check.skip "built without CUDA" end
  local code = [['local facts, why = require("gpu").cuda()
    print(facts and #facts.architectures > 0, why)']]
  local text, status = run("cd / && env -u LUA_PATH " .. installed .. " -e "
    .. code)
  check.equal(status, 0, text)
  check.equal(text, "true\tnil\n")
  run("mv " .. plugin .. " " .. plugin .. ".away")
  text = run("cd / && " .. installed .. " -e " .. code)
  run("mv " .. plugin .. ".away " .. plugin)
  check.equal(text, "nil\tthis build has no CUDA plugin\n")
end)

check.case("make uninstall leaves nothing", function()
  local text, code = make("uninstall PREFIX=/opt/llm DESTDIR=" .. root)
  check.equal(code, 0, text)
  check.equal((run("find " .. root .. " -type f")), "")
end)

check.done()
