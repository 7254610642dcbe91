/* The lines typed at the prompt, kept from one run to the next in
 * $XDG_STATE_HOME/llmhost/history (~/.local/state when that is unset): private
 * to the user, one line an entry, the newest LH_HISTORY_LINES of them. What
 * cannot be read or written is done without. */
#ifndef LH_HISTORY_H
#define LH_HISTORY_H

enum { LH_HISTORY_LINES = 1000 };

/* Find the file and give each of its lines, oldest first, to `use`; a file that
 * has grown past twice its bound is cut back. */
void lh_history_open(void (*use)(const char *line));

/* Append a line, unless it repeats the one before or is over 4 kB. Several
 * sessions may do so at once. */
void lh_history_add(const char *line);

#endif
