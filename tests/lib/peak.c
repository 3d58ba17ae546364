/*
 * peak: runs a command and appends the size of the largest process that it waited for to a file.
 *
 *   peak FILE COMMAND...   one line: KiB, as getrusage(2) has it. Its status is that of the command, 128 and the signal when one ended it
 *
 * A program, as the bench puts it before what runs on the other side: a script would cost more than what is measured.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rusage use;
	int status;

	if (argc < 3)
		return 125;
	pid_t pid = fork();
	if (pid == 0) {
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &use) < 0)
		return 125;
	FILE *f = fopen(argv[1], "a");
	if (!f || fprintf(f, "%ld\n", use.ru_maxrss) < 0 || fclose(f))
		return 125;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
