/* SPDX-License-Identifier: MIT */
/* The protocol of plugins/lib/bus/callring.c, for exhaustive search by spin: every interleaving
 * (sequentially consistent; what weaker memory adds is callring_model_test's).
 *
 *     sh check.sh WORKDIR callring.pml
 *
 * Checked: no deadlock, so no wake-up is lost and every caller gets through; each call is worked
 * on once and answered with its own number; at the end nothing is left in the ring. Names are
 * those of the code; CALLS is what each caller does. -DMEET=1: the first two calls wait for each
 * other, so that both workers must be up. -DMUTANT=1 … 4 leaves something out, and must be found. */
#ifndef CALLERS
#define CALLERS 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef CAPACITY
#define CAPACITY 4
#endif
#ifndef MEET
#define MEET 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

byte turn[CAPACITY], word[CAPACITY], answer[CAPACITY];
bool sleeper[CAPACITY];
bool awake[CAPACITY];        /* futex of turn: a wake that the sleeper has not seen */
byte tail, head, bell, sleepers, wakes; /* wakes: of the bell, not yet seen */
byte asleep;                 /* workers inside futex_wait */
byte served[CALLERS * CALLS + 1];
byte unfinished = CALLERS;
bool stop;
byte met;

#define CELL(p) ((p) % CAPACITY)

/* futex_wake(&bell, all or 1): no more than are asleep */
inline wake(n)
{
    d_step {
        if
        :: n > asleep - wakes -> wakes = asleep
        :: else -> wakes = wakes + n
        fi
    }
}

inline ring(n)
{
    if
    :: sleepers > 0 -> bell++; if :: MUTANT != 1 -> wake(n) :: else fi
    :: else
    fi
}

proctype caller(byte number)
{
    byte p, i;
    for (i : 1 .. CALLS) {
        /* take */
        p = tail;
        do
        :: atomic { turn[CELL(p)] == p && tail == p -> tail++ }; break
        :: atomic { else -> p = tail }
        od;
        atomic {
            assert(word[CELL(p)] == 0);
            word[CELL(p)] = number * CALLS + i;
            turn[CELL(p)] = p + 1 /* fill */
        }
        ring(1);
        /* wait */
        if
        :: turn[CELL(p)] == p + 2
        :: else ->
            sleeper[CELL(p)] = true;
            do
            :: turn[CELL(p)] == p + 2 -> break
            :: else -> /* futex_wait: looks once more, and sleeps, as one */
               if
               :: atomic { turn[CELL(p)] == p + 1 -> awake[CELL(p)] = false };
                  atomic { awake[CELL(p)] -> awake[CELL(p)] = false }
               :: atomic { turn[CELL(p)] != p + 1 -> skip }
               fi
            od;
            sleeper[CELL(p)] = false
        fi;
        atomic {
            assert(answer[CELL(p)] == number * CALLS + i);
            word[CELL(p)] = 0;
            answer[CELL(p)] = 0;
            turn[CELL(p)] = p + CAPACITY; /* collect */
            p = 0
        }
    }
    atomic {
        unfinished--;
        if :: unfinished == 0 -> stop = true :: else -> goto end fi
    }
    ring(WORKERS);
end: skip
}

proctype worker()
{
    byte p, seen, i;
    do
    :: stop -> break
    :: else ->
        /* next */
        p = head;
        if
        :: atomic { turn[CELL(p)] == p + 1 && head == p -> head++ };
           if /* a colleague for the next one */
           :: sleepers > 0 && turn[CELL(p + 1)] == p + 2 && MUTANT != 3 -> ring(1)
           :: else
           fi;
           atomic {
               i = word[CELL(p)];
               assert(i > 0 && served[i] == 0);
               served[i]++;
               met++
           }
           (!MEET || met >= 2);
           atomic {
               answer[CELL(p)] = i;
               turn[CELL(p)] = p + 2; /* answer */
               i = 0
           }
           if
           :: atomic { sleeper[CELL(p)] -> awake[CELL(p)] = MUTANT != 4; p = 0 }
           :: atomic { else -> p = 0 }
           fi
        :: atomic { else -> skip };
           /* idle */
           seen = bell;
           sleepers++;
           p = head;
           if
           :: MUTANT != 2 && (turn[CELL(p)] == p + 1 || head != p || stop)
           :: else ->
              if
              :: atomic { bell == seen -> asleep++ };
                 atomic { wakes > 0 -> wakes--; asleep-- }
              :: atomic { bell != seen -> skip }
              fi
           fi;
           atomic { sleepers--; p = 0; seen = 0 }
        fi
    od
}

init {
    byte i;
    atomic {
        for (i : 0 .. CAPACITY - 1) {
            turn[i] = i
        }
        for (i : 0 .. CALLERS - 1) {
            run caller(i)
        }
        for (i : 1 .. WORKERS) {
            run worker()
        }
    }
    (_nr_pr == 1);
    assert(head == tail && tail == CALLERS * CALLS);
    for (i : 1 .. CALLERS * CALLS) {
        assert(served[i] == 1)
    }
}
