/* What NVIDIA's management library knows of a GPU: loaded at run time, absent
 * without complaint. */
#ifndef LH_NVML_H
#define LH_NVML_H

#include <stdbool.h>
#include <stddef.h>

enum { LH_NVML_REASONS = 80 };

/* Shares of the time since the last question, in percent; negative numbers:
 * not known. */
typedef struct lh_nvml_use {
  double compute, memory;    /* percent */
  double watts, celsius;
  double total, used;        /* bytes of the device, everybody's */
  double process;            /* bytes that the driver counts as ours */
  bool throttled;            /* by heat or a fault, not by the power limit */
  bool power_capped;
  char reasons[LH_NVML_REASONS]; /* why clocks are lower, in words; or "" */
} lh_nvml_use;

/* Of the device at PCI address `bus` ("0000:0a:00.0"), asked for at most every
 * half second unless `fresh`; false with a reason in `why` where it cannot be
 * known. */
bool lh_nvml_read(const char *bus, bool fresh, lh_nvml_use *use, char *why,
                  size_t size);

#endif
