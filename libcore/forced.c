#include "forced.h"

bool forced_wanted(int argc, char **argv, const char *word)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], word))
			return true;
	return false;
}

static const struct forced_option *find(const struct forced_option *may, struct span word, char letter)
{
	for (; may->name; may++)
		if (letter ? may->letter == letter : span_eq(word, span_cstr(may->name)))
			return may;
	return NULL;
}

/* A word that is one long option or some letters, all of them on the list: appends their names. */
static bool choose(const struct forced_option *may, struct span word, char **args, int *n)
{
	const struct forced_option *o = find(may, word, 0);
	int was = *n;

	if (o) {
		memcpy(&args[(*n)++], &o->name, sizeof o->name);
		return true;
	}
	if (word.len < 2 || word.p[1] == '-')
		return false;
	for (size_t i = 1; i < word.len; i++) {
		o = find(may, word, (char)word.p[i]);
		if (!o) {
			*n = was;
			return false;
		}
		memcpy(&args[(*n)++], &o->name, sizeof o->name);
	}
	return true;
}

char **forced_args(int argc, char **argv, const char *command, const struct forced_option *may, int *n_args, struct buf *ignored)
{
	struct span left = span_cstr(command ? command : "");
	char **args = xalloc(((size_t)argc + left.len + 1) * sizeof *args);
	int n = 0;

	args[n++] = argv[0];
	while (left.len) {
		size_t len = 0;
		while (len < left.len && !memchr(" \t\n", left.p[len], 3))
			len++;
		struct span word = span_of(left.p, len);
		if (len && word.p[0] == '-' && !choose(may, word, args, &n)) {
			if (ignored->len)
				buf_str(ignored, " ");
			esc_name(ignored, word);
		}
		len += len < left.len;
		left = span_of(left.p + len, left.len - len);
	}
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	args[n] = NULL;
	*n_args = n;
	return args;
}
