/* SPDX-License-Identifier: MIT */
/* When requests arrive; see workload.h.
 *
 * A Markov-modulated Poisson process is drawn by spending hazard: each request has one
 * exponential draw of mean 1, and in a state of rate r it is used up at r a second; what is left
 * when the state ends is used up at the next state's rate. So the states and the gaps draw from
 * streams of their own, and two processes that differ in their rates alone go through the same
 * states. It starts in equilibrium: the first state is drawn by the mean stays, since the chain
 * that goes to any other state alike is in each equally often. (Fischer, Meier-Hellstern: "The
 * Markov-modulated Poisson process cookbook", Performance Evaluation 18, 1993.) */
#include "workload_internal.h"

#include <math.h>

#include <lathe/random.h>

static const double MOST_SECONDS = 9.2e9; /* 292 years in nanoseconds */
/* A state's stay should see an arrival once in so many stays, or drawing one would take for ever. */
static const double LEAST_ARRIVALS_A_STAY = 1e-4;

/* ── checks ────────────────────────────────────────────────────────────────────────── */

static int check_mmpp(const struct workload_params *p, struct lathe_error *err)
{
    double arrivals = 0, stays = 0;
    if (p->states < 1 || p->states > WORKLOAD_MAX_STATES)
        return lathe_fail(err, LATHE_EINVAL, "a Markov-modulated workload has %u states, but should have 1 to %d", p->states,
                          WORKLOAD_MAX_STATES);
    for (uint32_t i = 0; i < p->states; i++) {
        if (!(p->rates[i] >= 0 && p->rates[i] <= 1e9))
            return lathe_fail(err, LATHE_EINVAL, "state %u's rate is %g a second, but should be 0 to 1e9", i + 1, p->rates[i]);
        if (!(p->stays_s[i] >= 1e-6 && p->stays_s[i] <= 1e9))
            return lathe_fail(err, LATHE_EINVAL, "state %u's mean stay is %g s, but should be 1e-6 to 1e9", i + 1,
                              p->stays_s[i]);
        arrivals += p->rates[i] * p->stays_s[i];
        stays += p->stays_s[i];
    }
    if (arrivals / p->states < LEAST_ARRIVALS_A_STAY)
        return lathe_fail(err, LATHE_EINVAL, "%g arrivals come in a stay on average: raise the rates or the stays until it "
                          "is %g at least", arrivals / p->states, LEAST_ARRIVALS_A_STAY);
    if ((double)p->requests * stays / arrivals > MOST_SECONDS)
        return lathe_fail(err, LATHE_ERANGE, "%zu requests at these rates take more than 292 years", p->requests);
    return LATHE_OK;
}

static int check_trace(const struct workload_params *p, struct lathe_error *err)
{
    if (!p->rows || !p->row_count)
        return lathe_fail(err, LATHE_EINVAL, "a workload of a trace needs the trace's rows, and got none");
    if (!(p->speed == 0 || (p->speed >= 1e-9 && p->speed <= 1e9)))
        return lathe_fail(err, LATHE_EINVAL, "a trace's speed is %g, but should be 1e-9 to 1e9", p->speed);
    for (size_t i = 0; i < p->row_count; i++)
        if (!(p->rows[i].at_s >= (i ? p->rows[i - 1].at_s : 0)) || p->rows[i].at_s > MOST_SECONDS)
            return lathe_fail(err, LATHE_EINVAL, "row %zu of the trace arrives at %g s: times should ascend from 0", i + 1,
                              p->rows[i].at_s);
    double span = p->rows[p->row_count - 1].at_s - p->rows[0].at_s, speed = p->speed == 0 ? 1 : p->speed;
    if (span / speed * ((double)p->requests / (double)p->row_count + 1) > MOST_SECONDS)
        return lathe_fail(err, LATHE_ERANGE, "the trace, for %zu requests, takes more than 292 years", p->requests);
    return LATHE_OK;
}

int workload_arrivals_check(const struct workload_params *p, struct lathe_error *err)
{
    switch (p->arrivals) {
    case WORKLOAD_GAMMA:
        if (!(p->cv >= 0.01 && p->cv <= 100))
            return lathe_fail(err, LATHE_EINVAL, "the gaps' coefficient of variation is %g, but should be 0.01 to 100", p->cv);
        /* fall through */
    case WORKLOAD_CONSTANT:
    case WORKLOAD_POISSON:
        if (!(p->rate >= 1e-9 && p->rate <= 1e9))
            return lathe_fail(err, LATHE_EINVAL, "the rate is %g requests a second, but should be 1e-9 to 1e9", p->rate);
        if ((double)p->requests / p->rate > MOST_SECONDS)
            return lathe_fail(err, LATHE_ERANGE, "%zu requests at %g a second take more than 292 years", p->requests, p->rate);
        return LATHE_OK;
    case WORKLOAD_MMPP: return check_mmpp(p, err);
    case WORKLOAD_BURST:
        if (p->size < 1)
            return lathe_fail(err, LATHE_EINVAL, "a burst has %u requests, but should have 1 at least", p->size);
        if (!(p->every_s >= 0 && p->every_s <= 1e9))
            return lathe_fail(err, LATHE_EINVAL, "bursts come every %g s, but it should be 0 to 1e9", p->every_s);
        if ((double)p->requests / p->size * p->every_s > MOST_SECONDS)
            return lathe_fail(err, LATHE_ERANGE, "%zu requests in bursts every %g s take more than 292 years", p->requests,
                              p->every_s);
        return LATHE_OK;
    case WORKLOAD_TRACE: return check_trace(p, err);
    case WORKLOAD_CLOSED: return LATHE_OK;
    default: return lathe_fail(err, LATHE_EINVAL, "there are no arrivals of kind %d", p->arrivals);
    }
}

/* ── draws ─────────────────────────────────────────────────────────────────────────── */

static struct workload_key key_of(const struct workload_params *p, uint64_t stream)
{
    return (struct workload_key){ .seed = p->seed_arrivals, .stream = stream, .purpose = LATHE_RANDOM_ARRIVALS };
}

static uint32_t first_state(const struct workload_params *p, double unit)
{
    double sum = 0;
    uint32_t state = 0;
    for (uint32_t i = 0; i < p->states; i++)
        sum += p->stays_s[i];
    for (unit *= sum; state + 1 < p->states && unit >= p->stays_s[state]; state++)
        unit -= p->stays_s[state];
    return state;
}

/* Into the next state, and how long it lasts. What is left of a stay is distributed as a whole one. */
static void enter_state(const struct workload_params *p, struct workload_arrivals *a)
{
    double unit = lathe_random_unit(p->seed_arrivals, LATHE_RANDOM_ARRIVALS, WORKLOAD_STREAM_STATES, a->visits);
    if (a->visits == 0)
        a->state = first_state(p, unit);
    else if (p->states > 1) /* any other, alike */
        a->state = (a->state + 1 + (uint32_t)(unit * (p->states - 1))) % p->states;
    a->until_s += p->stays_s[a->state] * workload_exponential(key_of(p, WORKLOAD_STREAM_STAYS), a->visits);
    a->visits++;
}

static double next_mmpp(const struct workload_params *p, struct workload_arrivals *a, uint32_t number)
{
    double hazard = workload_exponential(key_of(p, WORKLOAD_STREAM_GAPS), number), now = a->now_s;
    if (a->visits == 0)
        enter_state(p, a);
    while (hazard > (a->until_s - now) * p->rates[a->state]) {
        hazard -= (a->until_s - now) * p->rates[a->state];
        now = a->until_s;
        enter_state(p, a);
    }
    return p->rates[a->state] > 0 ? now + hazard / p->rates[a->state] : now; /* rate 0: the hazard was 0 too */
}

/* A round is the rows' span and one mean gap, so that the rate stays the trace's when it is read again. */
static double next_row(const struct workload_params *p, struct workload_arrivals *a, const struct workload_trace_row **row)
{
    double first = p->rows[0].at_s, span = p->rows[p->row_count - 1].at_s - first, speed = p->speed == 0 ? 1 : p->speed;
    if (a->row == p->row_count) {
        a->row = 0;
        a->round_s += p->row_count > 1 ? span + span / (double)(p->row_count - 1) : 0;
    }
    *row = &p->rows[a->row++];
    return (a->round_s + ((*row)->at_s - first)) / speed;
}

double workload_arrivals_next(struct workload *w, uint32_t number, const struct workload_trace_row **row)
{
    const struct workload_params *p = &w->params;
    struct workload_arrivals *a = &w->arrivals;
    struct workload_key gaps = key_of(p, WORKLOAD_STREAM_GAPS);
    double shape;
    *row = NULL;
    switch (p->arrivals) {
    case WORKLOAD_CONSTANT: a->now_s = (double)(number - 1) / p->rate; break;
    case WORKLOAD_POISSON: a->now_s += workload_exponential(gaps, number) / p->rate; break;
    case WORKLOAD_GAMMA:
        shape = 1 / (p->cv * p->cv);
        a->now_s += workload_gamma(shape, gaps, number) / (shape * p->rate);
        break;
    case WORKLOAD_MMPP: a->now_s = next_mmpp(p, a, number); break;
    case WORKLOAD_BURST: a->now_s = (double)((number - 1) / p->size) * p->every_s; break;
    case WORKLOAD_TRACE: a->now_s = next_row(p, a, row); break;
    default: break;
    }
    return fmin(a->now_s, MOST_SECONDS); /* of the random ones, only the expected end was checked */
}
