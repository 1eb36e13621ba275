/* SPDX-License-Identifier: MIT */
/* See workload_draw.h. */
#include "workload_draw.h"

#include <math.h>

#include <lathe/random.h>

static double unit(struct workload_key key, uint32_t counter)
{
    return lathe_random_unit(key.seed, key.purpose, key.stream, counter);
}

/* Box and Muller. */
double workload_normal(struct workload_key key, uint32_t counter)
{
    double u = 1 - unit(key, 2 * counter); /* (0, 1] */
    double v = unit(key, 2 * counter + 1);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

double workload_exponential(struct workload_key key, uint32_t counter)
{
    return -log(1 - unit(key, counter));
}

/* Marsaglia and Tsang, "A simple method for generating gamma variables" (2000). Rejection needs
 * an unknown number of draws, so each counter has a stream of its own. */
double workload_gamma(double shape, struct workload_key key, uint32_t counter)
{
    double boost = 1;
    key.stream = (key.stream << 40) + ((uint64_t)1 << 39) + counter;
    if (shape < 1) { /* gamma(k) = gamma(k + 1) · u^(1/k) */
        boost = pow(1 - unit(key, 0), 1 / shape);
        shape = shape + 1;
    }
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (uint32_t attempt = 1;; attempt++) { /* more than 95% of the attempts end it */
        double x = workload_normal(key, 2 * attempt);
        double v = pow(1 + c * x, 3);
        double u = 1 - unit(key, 4 * attempt + 2);
        if (v > 0 && log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return boost * d * v;
    }
}

/* ── lengths ───────────────────────────────────────────────────────────────────────── */

static uint32_t least(const struct workload_length *l)
{
    return l->min ? l->min : 1;
}

static uint32_t most(const struct workload_length *l)
{
    return l->max ? l->max : WORKLOAD_MAX_TOKENS;
}

static int is_tokens(double value)
{
    return value >= 1 && value <= WORKLOAD_MAX_TOKENS; /* NaN isn't */
}

int workload_length_check(const struct workload_length *l, const char *what, struct lathe_error *err)
{
    int good = 0;
    switch (l->kind) {
    case WORKLOAD_FIXED:
    case WORKLOAD_EXPONENTIAL: good = is_tokens(l->a); break;
    case WORKLOAD_UNIFORM: good = is_tokens(l->a) && is_tokens(l->b) && l->a <= l->b; break;
    case WORKLOAD_LOGNORMAL: good = is_tokens(l->a) && l->b >= 0 && l->b <= 20; break;
    case WORKLOAD_EMPIRICAL:
        if (!l->value_count || !l->values)
            return lathe_fail(err, LATHE_EINVAL, "%s: an empirical distribution needs at least one value", what);
        good = 1;
        break;
    case WORKLOAD_OF_TRACE: good = 1; break;
    default: return lathe_fail(err, LATHE_EINVAL, "%s: there is no distribution of kind %d", what, l->kind);
    }
    if (!good)
        return lathe_fail(err, LATHE_EINVAL, "%s: a distribution with %g and %g gives no lengths of 1 to %d tokens", what,
                          l->a, l->b, WORKLOAD_MAX_TOKENS);
    if (least(l) > most(l) || most(l) > WORKLOAD_MAX_TOKENS)
        return lathe_fail(err, LATHE_EINVAL, "%s: cut to %u … %u tokens, but it should be 1 to %d, the smaller first", what,
                          least(l), most(l), WORKLOAD_MAX_TOKENS);
    return LATHE_OK;
}

uint32_t workload_length_cut(const struct workload_length *l, double tokens)
{
    double value = floor(tokens + 0.5);
    return !(value > least(l)) ? least(l) : value >= most(l) ? most(l) : (uint32_t)value;
}

uint32_t workload_length_draw(const struct workload_length *l, struct workload_key key, uint32_t counter, uint32_t traced)
{
    double value = traced;
    switch (l->kind) {
    case WORKLOAD_FIXED: value = l->a; break;
    case WORKLOAD_UNIFORM: value = l->a + floor(unit(key, counter) * (l->b - l->a + 1)); break;
    case WORKLOAD_LOGNORMAL: value = l->a * exp(l->b * workload_normal(key, counter)); break;
    case WORKLOAD_EXPONENTIAL: value = l->a * workload_exponential(key, counter); break;
    case WORKLOAD_EMPIRICAL: value = l->values[(size_t)(unit(key, counter) * (double)l->value_count)]; break;
    default: break;
    }
    return workload_length_cut(l, value);
}

/* P(N(0, 1) ≤ x) */
static double phi(double x)
{
    return 0.5 * erfc(-x * M_SQRT1_2);
}

/* E[min(max(X, lo), hi)] = ∫ below lo: lo, between: x f(x), above hi: hi. */
static double lognormal_mean(double median, double sigma, double lo, double hi)
{
    if (sigma == 0)
        return fmin(fmax(median, lo), hi);
    double mu = log(median), from = (log(lo) - mu) / sigma, to = (log(hi) - mu) / sigma;
    return lo * phi(from) + hi * phi(-to) +
           exp(mu + sigma * sigma / 2) * (phi(to - sigma) - phi(from - sigma));
}

/* a … b alike, what lies below lo counted as lo and what lies above hi as hi. */
static double uniform_mean(double a, double b, double lo, double hi)
{
    double from = fmin(fmax(a, lo), hi), to = fmin(fmax(b, lo), hi);
    double inside = to - from + 1; /* the ends of it stand for themselves */
    return ((from - a) * from + (b - to) * to + inside * (from + to) / 2) / (b - a + 1);
}

double workload_length_mean(const struct workload_length *l)
{
    double lo = least(l), hi = most(l), sum = 0;
    switch (l->kind) {
    case WORKLOAD_UNIFORM: return uniform_mean(l->a, l->b, lo, hi);
    case WORKLOAD_LOGNORMAL: return lognormal_mean(l->a, l->b, lo, hi);
    case WORKLOAD_EXPONENTIAL: return lo + l->a * (exp(-lo / l->a) - exp(-hi / l->a));
    case WORKLOAD_EMPIRICAL:
        for (size_t i = 0; i < l->value_count; i++)
            sum += workload_length_cut(l, l->values[i]);
        return sum / (double)l->value_count;
    default: return workload_length_cut(l, l->a);
    }
}
