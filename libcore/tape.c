#include "tape.h"

#include <unistd.h>

#include "file.h"

int tape_open(struct tape *t, const char *tmpdir, struct err *e)
{
	*t = (struct tape){.fd = file_temp(tmpdir)};
	if (t->fd < 0)
		return err_sys(e, "cannot make a temporary file in '%s'", tmpdir);
	t->sink = (struct sink){.fd = t->fd, .name = "a temporary file"};
	t->out = (struct stream_out){.sink = sink_write, .ctx = &t->sink};
	return stream_begin(&t->out, KIND_CHANGE, e);
}

int tape_close(struct tape *t, struct err *e)
{
	struct record end = {.type = REC_END};

	return stream_put(&t->out, &end, e) || stream_finish(&t->out, e) || sink_flush(&t->sink, e) ? -1 : 0;
}

int tape_read(struct tape *t, struct input *in, struct err *e)
{
	if (lseek(t->fd, 0, SEEK_SET))
		return err_sys(e, "cannot read a temporary file");
	if (input_open(in, t->fd, 1, e))
		return -1;
	/* The header, then at least the END. */
	if (input_next(in, e) == STREAM_BEGIN && input_next(in, e) == STREAM_RECORD)
		return 0;
	input_close(in);
	return -1;
}

void tape_free(struct tape *t)
{
	close_fd(&t->fd);
	stream_out_free(&t->out);
	sink_free(&t->sink);
}
