-- What luacheck holds every Lua file to; `make lint` treats a warning as an
-- error.
std = "lua54"
max_line_length = 80
max_code_line_length = 80
unused_args = true
self = false
codes = true
ignore = { "581" } -- `not (a <= b)` is how a NaN is caught
exclude_files = { "build/**", "**/*.meta.lua" }
