/* Status codes and the one message that goes with a failure. */
#include "status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const words[] = {
#define STATUS(name, word) word,
#include "status.def"
#undef STATUS
};

const char *lk_status_word(lk_status status) {
  return (unsigned)status < LK_STATUS_COUNT ? words[status] : "unknown";
}

static void format_message(lk_error *error, lk_status code,
                           const char *format, va_list args) {
  error->code = code;
  vsnprintf(error->message, sizeof error->message, format, args);
}

lk_status lk_fail(lk_error *error, lk_status code, const char *format, ...) {
  if (error == NULL) return code;
  va_list args;
  va_start(args, format);
  format_message(error, code, format, args);
  va_end(args);
  return code;
}

static lk_status status_of_errno(int err) {
  switch (err) {
    case ENOSPC: case EDQUOT: case EIO: return LK_DISK;
    case ENOMEM: return LK_OOM;
    default: return LK_IO;
  }
}

lk_status lk_fail_errno(lk_error *error, int err, const char *format, ...) {
  lk_status code = status_of_errno(err);
  if (error == NULL) return code;
  va_list args;
  va_start(args, format);
  format_message(error, code, format, args);
  va_end(args);
  size_t used = strlen(error->message);
  snprintf(error->message + used, sizeof error->message - used, ": %s",
           strerror(err));
  return code;
}
