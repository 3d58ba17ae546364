#include "stamp.h"

#include <inttypes.h>
#include <time.h>

#include "json.h"

#define NS INT64_C(1000000000)

static bool two_digits(const char **p, int *out)
{
	const char *s = *p;

	if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9')
		return false;
	*out = (s[0] - '0') * 10 + (s[1] - '0');
	*p += 2;
	return true;
}

static bool one_char(const char **p, const char *set)
{
	bool is_in = **p && strchr(set, **p);

	*p += is_in;
	return is_in;
}

static bool fraction(const char **p, int64_t *ns)
{
	int64_t unit = NS / 10;

	*ns = 0;
	if (!one_char(p, "."))
		return true;
	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; ++*p, unit /= 10)
		*ns += (**p - '0') * unit;
	return true;
}

static bool since_epoch(const char *p, int64_t *ns)
{
	int64_t s = 0, frac;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if ((s = s * 10 + (*p - '0')) > INT64_MAX / NS - 1)
			return false;
	if (!fraction(&p, &frac) || *p)
		return false;
	*ns = s * NS + frac;
	return true;
}

bool stamp_parse(const char *p, int64_t *ns)
{
	struct tm tm = {0};
	int century, year, oh = 0, om = 0, sign = 0;
	int64_t frac;

	if (*p == '@')
		return since_epoch(p + 1, ns);
	if (!two_digits(&p, &century) || !two_digits(&p, &year) || !one_char(&p, "-") || !two_digits(&p, &tm.tm_mon) ||
			!one_char(&p, "-") || !two_digits(&p, &tm.tm_mday) || !one_char(&p, "Tt ") ||
			!two_digits(&p, &tm.tm_hour) || !one_char(&p, ":") || !two_digits(&p, &tm.tm_min) ||
			!one_char(&p, ":") || !two_digits(&p, &tm.tm_sec) || !fraction(&p, &frac))
		return false;
	if (*p == '+' || *p == '-') {
		sign = *p++ == '+' ? 1 : -1;
		if (!two_digits(&p, &oh) || !one_char(&p, ":") || !two_digits(&p, &om) || oh > 23 || om > 59)
			return false;
	} else if (!one_char(&p, "Zz")) {
		return false;
	}
	if (*p || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	struct tm want = tm;
	tm.tm_year = century * 100 + year - 1900;
	tm.tm_mon--;
	int64_t s = timegm(&tm);
	if (tm.tm_mday != want.tm_mday && tm.tm_sec == want.tm_sec) /* a day that the month does not have */
		return false;
	s -= sign * (oh * 3600 + om * 60);
	if (s < 0 || s > INT64_MAX / NS - 1)
		return false;
	*ns = s * NS + frac;
	return true;
}

const char *const stamp_providers[STAMP_PROVIDERS] = {
	[PROV_NONE] = "none", [PROV_LIVE] = "live", [PROV_BTRFS] = "btrfs", [PROV_REFLINK] = "reflink", [PROV_EXEC] = "exec",
};
const char *const stamp_consistencies[STAMP_CONSISTENCIES] = {
	[CONS_UNKNOWN] = "unknown", [CONS_LIVE] = "live", [CONS_CRASH] = "crash", [CONS_APP] = "app",
};

void stamp_time(struct buf *b, int64_t ns)
{
	time_t s = (time_t)(ns / NS);
	struct tm tm;
	char text[64];

	if (!ns || !gmtime_r(&s, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
		buf_str(b, "-");
	else
		buf_str(b, text);
}

void stamp_text(struct buf *b, const char *what, const struct digest *id, const struct r_image *s)
{
	char text[2 * DIGEST_LEN + 1] = "-";

	if (id)
		hex(text, id->b, sizeof id->b);
	buf_fmt(b, "%-8s %s seq %" PRIu64 " ", what, text, s->seq);
	stamp_time(b, s->time_ns);
	if (s->consistency && s->consistency < STAMP_CONSISTENCIES)
		buf_fmt(b, " %s", stamp_consistencies[s->consistency]);
	if (s->provider > PROV_LIVE && s->provider < STAMP_PROVIDERS)
		buf_fmt(b, " (%s)", stamp_providers[s->provider]);
	if (s->group.len) {
		buf_str(b, " of ");
		esc_name(b, s->group);
	}
	if (s->bookmark.len) {
		buf_str(b, " '");
		esc_name(b, s->bookmark);
		buf_str(b, "'");
	}
	buf_str(b, "\n");
}

static void text_json(struct buf *b, const char *name, struct span text)
{
	buf_fmt(b, ",\"%s\":", name);
	if (text.len)
		json_string(b, text);
	else
		buf_str(b, "null");
}

void stamp_json(struct buf *b, const char *what, const struct digest *id, const struct r_image *s)
{
	char text[2 * DIGEST_LEN + 1];

	buf_fmt(b, "\"%s\":{\"id\":", what);
	if (id) {
		hex(text, id->b, sizeof id->b);
		buf_fmt(b, "\"%s\"", text);
	} else {
		buf_str(b, "null");
	}
	buf_fmt(b, ",\"seq\":%" PRIu64 ",\"time\":", s->seq);
	if (s->time_ns) {
		buf_str(b, "\"");
		stamp_time(b, s->time_ns);
		buf_str(b, "\"");
	} else {
		buf_str(b, "null");
	}
	buf_fmt(b, ",\"consistency\":\"%s\",\"provider\":\"%s\"",
		stamp_consistencies[s->consistency < STAMP_CONSISTENCIES ? s->consistency : CONS_UNKNOWN],
		stamp_providers[s->provider < STAMP_PROVIDERS ? s->provider : PROV_NONE]);
	text_json(b, "bookmark", s->bookmark);
	text_json(b, "group", s->group);
	text_json(b, "host", s->host);
	buf_str(b, "}");
}
