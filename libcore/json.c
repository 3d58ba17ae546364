#include "json.h"

#include <inttypes.h>

/* Length of the UTF-8 sequence at p and its character, or 0. */
static size_t utf8(const uint8_t *p, size_t n, uint32_t *c)
{
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;

	if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
		return 0;
	*c = p[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (p[i] & 0x3fu);
	}
	return *c < least[len] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : len;
}

void json_string(struct buf *b, struct span s)
{
	static const char shorts[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

	wr_u8(b, '"');
	for (size_t i = 0; i < s.len;) {
		uint8_t byte = s.p[i];
		uint32_t c = byte;
		size_t len = byte < 0x80 ? 1 : utf8(s.p + i, s.len - i, &c);

		i += len ? len : 1;
		if (!len)
			buf_fmt(b, "\\udc%02x", (unsigned)byte);
		else if (c > 0xffff)
			buf_fmt(b, "\\u%04" PRIx32 "\\u%04" PRIx32, 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
		else if (c == '"' || c == '\\')
			buf_fmt(b, "\\%c", (int)c);
		else if (c < sizeof shorts && shorts[c])
			buf_fmt(b, "\\%c", shorts[c]);
		else if (c < 0x20 || c >= 0x7f)
			buf_fmt(b, "\\u%04" PRIx32, c);
		else
			wr_u8(b, byte);
	}
	wr_u8(b, '"');
}
