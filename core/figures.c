/* SPDX-License-Identifier: MIT */
#include "figures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[FIGURE_COUNT] = { "response", "ttft", "queue", "tpot" };

int figures_open(struct figures *f, struct lathe_error *err)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < FIGURE_COUNT; i++) {
        f->of[i].cells = calloc(FIGURES_CELLS, sizeof *f->of[i].cells);
        if (!f->of[i].cells) {
            figures_close(f);
            return lathe_fail(err, LATHE_ENOMEM, "no memory for the histogram of %s times", names[i]);
        }
    }
    return LATHE_OK;
}

void figures_close(struct figures *f)
{
    for (int i = 0; i < FIGURE_COUNT; i++) {
        free(f->of[i].cells);
        f->of[i].cells = NULL;
    }
}

/* Below 2^BITS a cell a nanosecond; above, 2^BITS cells a power of two. */
static uint32_t cell_of(uint64_t ns)
{
    if (ns < 1u << FIGURES_BITS)
        return (uint32_t)ns;
    unsigned top = 63 - (unsigned)__builtin_clzll(ns), shift = top - FIGURES_BITS;
    return ((shift + 1) << FIGURES_BITS) + (uint32_t)(ns >> shift & ((1u << FIGURES_BITS) - 1));
}

static double middle_of(uint32_t cell)
{
    uint32_t octave = cell >> FIGURES_BITS;
    if (octave == 0)
        return cell;
    double width = ldexp(1.0, (int)octave - 1);
    return ((double)((1u << FIGURES_BITS) + (cell & ((1u << FIGURES_BITS) - 1))) + 0.5) * width;
}

void figure_add(struct figure *f, int64_t ns)
{
    ns = ns < 0 ? 0 : ns;
    f->count++;
    f->sum += (double)ns;
    f->sum_of_squares += (double)ns * (double)ns;
    f->max = ns > f->max ? ns : f->max;
    f->cells[cell_of((uint64_t)ns)]++;
}

double figure_percentile(const struct figure *f, double p)
{
    uint64_t want = (uint64_t)ceil(p * (double)f->count), seen = 0;
    if (f->count == 0)
        return NAN;
    want = want < 1 ? 1 : want;
    for (uint32_t i = 0; i < FIGURES_CELLS; i++) {
        seen += f->cells[i];
        if (seen >= want)
            return middle_of(i) < (double)f->max ? middle_of(i) : (double)f->max;
    }
    return (double)f->max;
}

void figures_count(struct figures *f, const struct lathe_request *r, int64_t finish_ns)
{
    int64_t ttft = r->first_token_ns - r->planned_ns;
    int64_t tpot = r->output_tokens > 1 ? (finish_ns - r->first_token_ns) / (r->output_tokens - 1) : 0;
    figure_add(&f->of[FIGURE_RESPONSE], finish_ns - r->planned_ns);
    figure_add(&f->of[FIGURE_QUEUE], r->admitted_ns - r->planned_ns);
    figure_add(&f->of[FIGURE_TTFT], ttft);
    if (r->output_tokens > 1)
        figure_add(&f->of[FIGURE_TPOT], tpot);
    if (r->slo_ttft_ns || r->slo_tpot_ns) {
        f->with_slo++;
        f->met_slo += (!r->slo_ttft_ns || ttft <= r->slo_ttft_ns) && (!r->slo_tpot_ns || tpot <= r->slo_tpot_ns);
    }
}
