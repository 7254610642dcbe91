/* The command line: one list of options, from which it is parsed, checked,
 * explained and handed to Lua. */
#ifndef LH_ARGUMENTS_H
#define LH_ARGUMENTS_H

#include <lua.h>
#include <stdbool.h>

typedef struct lh_arguments {
  const char *device, *devices, *memory, *color; /* as typed; NULL: absent */
  const char *experiment;                        /* set in a child only */
  bool json, force, fresh, interactive, version, help;
  bool script_help; /* --help after the script: its help, not the program's */
  bool *taken;  /* argc flags: the host's own words after the script */
  int argc;
  char **argv;
  int script;   /* position of the script (or "-") in argv; 0: none */
} lh_arguments;

/* What -e and -l ask for, in their order: kind 'e' or 'l' and the text. Gives
 * false after the last one; start with *at = 1. */
bool lh_arguments_action(const lh_arguments *a, int *at, char *kind,
                         const char **text);

/* Parse; false after a message on stderr (exit with LH_EXIT_USAGE). Options
 * before the script must be known. After it the host's long options are still
 * taken, everything else is the script's; "--" ends the host's part. */
bool lh_arguments_parse(lh_arguments *a, int argc, char **argv);
void lh_arguments_free(lh_arguments *a);

/* Set the fields of the table on top of the stack (host.options). */
void lh_arguments_push(lua_State *L, const lh_arguments *a);
/* Registry field: the array of options that people see, { name, value, doc }
 * each, which completion and the manual page are written from. */
#define LH_ARGUMENTS_FIELD "llmhost.arguments"
void lh_arguments_document(lua_State *L);
/* Set the global `arg` as lua(1) does. */
void lh_arguments_set_arg(lua_State *L, const lh_arguments *a);

/* Print what --help prints. */
void lh_arguments_help(void);

#endif
