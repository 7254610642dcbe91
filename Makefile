# llmhost: build, tests, set-up. `make help` lists the targets.
VARIANT ?= release
BUILD   := build/$(VARIANT)
CC      ?= gcc
CFLAGS_release := -O2 -g
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer
CFLAGS_tsan    := -O1 -g -fsanitize=thread
PKGS    := lua5.4 openblas libpcre2-8
CFLAGS  := -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -fPIC \
           -ffp-contract=off -fno-math-errno -pthread $(CFLAGS_$(VARIANT)) \
           $(shell pkg-config --cflags $(PKGS))
LDLIBS  := $(shell pkg-config --libs $(PKGS)) -lm -ldl -pthread
LDFLAGS := -rdynamic $(filter -fsanitize%,$(CFLAGS_$(VARIANT)))

SOURCES := $(filter-out host/main.c,$(wildcard kernels/base/*.c kernels/core/*.c \
  kernels/graph/*.c host/*.c host/bind/*.c host/sys/*.c host/text/*.c) \
  $(wildcard kernels/cpu/cpu.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LEVELS  := $(if $(filter x86_64,$(shell uname -m)),v1 v3 v4,base)
MARCH_v1 := -march=x86-64
MARCH_v3 := -march=x86-64-v3
MARCH_v4 := -march=x86-64-v4 -mprefer-vector-width=512
OBJECTS += $(if $(wildcard kernels/cpu/level.c),$(LEVELS:%=$(BUILD)/kernels/cpu/level.%.o))

all: build/llmhost
build/llmhost: $(BUILD)/llmhost
	@ln -sf $(VARIANT)/llmhost $@
$(BUILD)/llmhost: $(OBJECTS) $(BUILD)/host/main.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/kernels/cpu/level.%.o: kernels/cpu/level.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -O3 $(MARCH_$*) -DLK_CPU_LEVEL=$* -MMD -MP -c -o $@ $<
# C tests: tests/c/NAME.c -> build/VARIANT/tests/NAME
$(BUILD)/tests/%: tests/c/%.c $(OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $^ $(LDLIBS)
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all
