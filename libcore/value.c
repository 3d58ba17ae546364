#include "value.h"

#include "bytes.h"

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

bool value_digits(const char **s, uint64_t *out)
{
	const char *at = *s;
	uint64_t v = 0;

	for (; *at >= '0' && *at <= '9'; at++)
		if (!mul_u64(v, 10, &v) || !add_u64(v, (uint64_t)(*at - '0'), &v))
			return false;
	if (at == *s)
		return false;
	*s = at;
	*out = v;
	return true;
}

bool value_size(const char *s, uint64_t *out)
{
	static const char letters[] = "KMGTPE";
	const char *letter;
	uint64_t v, unit = 1, base = 1024;

	if (!value_digits(&s, &v))
		return false;
	if (*s == '\0' || strcmp(s, "B") == 0) {
		*out = v;
		return true;
	}
	letter = strchr(letters, *s == 'k' ? 'K' : *s);
	if (letter == NULL)
		return false;
	s++;
	if (strcmp(s, "B") == 0)
		base = 1000;
	else if (*s != '\0' && strcmp(s, "iB") != 0)
		return false;
	for (const char *l = letters; l <= letter; l++)
		unit *= base;
	if (!mul_u64(v, unit, &v))
		return false;
	*out = v;
	return true;
}

bool value_duration(const char *s, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
		{"", SECOND}, {"s", SECOND}, {"ms", MS}, {"m", 60 * SECOND}, {"h", 3600 * SECOND},
		{"d", 86400 * SECOND},
	};
	uint64_t v;

	if (!value_digits(&s, &v))
		return false;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcmp(s, units[i].name) == 0) {
			if (!mul_u64(v, units[i].ns, &v))
				return false;
			*ns = v;
			return true;
		}
	}
	return false;
}

bool value_number(const char *s, int64_t *out)
{
	bool is_negative = *s == '-';
	uint64_t v;

	if (is_negative || *s == '+')
		s++;
	if (!value_digits(&s, &v) || *s != '\0' || v > (uint64_t)INT64_MAX)
		return false;
	*out = is_negative ? -(int64_t)v : (int64_t)v;
	return true;
}
