/* SPDX-License-Identifier: MIT */
/* Counter-based random numbers: Philox4x32-10.
 *
 * Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011. A draw is a pure function of (seed, purpose, stream, counter): there
 * is no state, so sampling, arrivals, lengths, noise and routing never shift each
 * other, a request draws the same whatever else is in its batch, and a replay
 * draws the same. `stream` is mostly the request's id, `counter` the token's index. */
#ifndef LATHE_RANDOM_H
#define LATHE_RANDOM_H

#include <stdint.h>

/* What a draw is for. Appended, never renumbered: replays depend on it. */
enum lathe_random_purpose {
    LATHE_RANDOM_SAMPLING = 1,
    LATHE_RANDOM_ARRIVALS = 2,
    LATHE_RANDOM_LENGTHS = 3,
    LATHE_RANDOM_NOISE = 4,
    LATHE_RANDOM_ROUTING = 5,
    LATHE_RANDOM_WEIGHTS = 6,
    LATHE_RANDOM_EVICTION = 7,
    LATHE_RANDOM_RETRY = 8,
    LATHE_RANDOM_FAULTS = 9,
    LATHE_RANDOM_USER = 64, /* and above: yours */
};

/* The bijection itself: key (2 × 32 bits), counter (4 × 32), ten rounds. [any] */
static inline void lathe_philox4x32_10(const uint32_t key_in[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t key[2] = { key_in[0], key_in[1] };
    uint32_t c[4] = { counter[0], counter[1], counter[2], counter[3] };
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ key[0], n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ key[1];
        c[1] = (uint32_t)p1;
        c[3] = (uint32_t)p0;
        c[0] = n0;
        c[2] = n2;
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    out[0] = c[0]; out[1] = c[1]; out[2] = c[2]; out[3] = c[3];
}

/* 64 random bits. The purpose is folded into the counter's top word. [any] */
static inline uint64_t lathe_random_u64(uint64_t seed, uint32_t purpose, uint64_t stream, uint32_t counter)
{
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t c[4] = { counter, (uint32_t)stream, (uint32_t)(stream >> 32), purpose }, out[4];
    lathe_philox4x32_10(key, c, out);
    return (uint64_t)out[1] << 32 | out[0];
}

/* Uniform in [0, 1), 53 bits. [any] */
static inline double lathe_random_unit(uint64_t seed, uint32_t purpose, uint64_t stream, uint32_t counter)
{
    return (double)(lathe_random_u64(seed, purpose, stream, counter) >> 11) * 0x1.0p-53;
}

#endif
