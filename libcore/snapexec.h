/*
 * snapexec: the provider whose snapshots are made by a program of somebody else (repl-provider(5)).
 *
 *   PROGRAM create NAME ROOT   makes a snapshot of what ROOT shows
 *   PROGRAM where NAME ROOT    says where its content can be read
 *   PROGRAM delete NAME ROOT   removes it
 *
 * NAME is INSTANCE-SEQ-SUM, where SUM is of ROOT. The file `ROOT/.repl/images/INSTANCE-SEQ` stands for the snapshot:
 *
 *   "repl-image 1\n"        before the program is run: so what the snapshot has of this file
 *   "repl-image 1\n?"       as soon as it is there
 *   "repl-image 1\n" PATH   when `where` has said where that is
 *
 * A directory holds the content of the snapshot when it has that file as it was before, and not as it is since: then it is of ROOT, was
 * taken after the file was written, and is not ROOT itself. The empty directory of a mount that is not there, a snapshot of another
 * image, and the live tree do not pass for it.
 *
 * May use: provider, command, control, digest, file, bytes, err; runs programs.
 */
#ifndef REPL_SNAPEXEC_H
#define REPL_SNAPEXEC_H

#include "provider.h"

extern const struct provider snapexec_provider;

/* What --provider can say: "exec:" and an absolute path, or a name of letters, digits, - and _. */
bool snapexec_is_name(const char *how);
/* The program that it means, as its real path: that of exec:PATH, or the first one of this name in dirs. ERR_USAGE: there is none, or
 * others can write to it. Owned. */
int snapexec_find(const char *how, const char *const *dirs, size_t n_dirs, char **program, struct err *e);

#endif
