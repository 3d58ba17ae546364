/*
 * forced: what a client of sshd may choose when authorized_keys forces the command: options without a value, from a fixed list.
 *
 * SSH_ORIGINAL_COMMAND is cut at blanks and compared word by word; no shell, no quotes, no values, no operands. What is not on
 * the list is ignored. May use: bytes. Does not read the environment.
 */
#ifndef REPL_FORCED_H
#define REPL_FORCED_H

#include "bytes.h"

struct forced_option {
	const char *name; /* long, with its dashes: "--stats" */
	char letter;      /* 0: none */
};
/* The arguments to parse: argv[0], what the client chose, then the rest of argv, so that where the last use of an option wins it
 * is the one in authorized_keys. command may be NULL. A NULL name ends may. Owned: free the array only. Options that were ignored
 * are appended to `ignored`, escaped, with a blank between them. */
char **forced_args(int argc, char **argv, const char *command, const struct forced_option *may, int *n_args, struct buf *ignored);
/* argv has this word before "--". */
bool forced_wanted(int argc, char **argv, const char *word);

#endif
