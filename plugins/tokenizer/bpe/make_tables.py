#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes unicode_classes.c and unicode_nfc.c from Unicode 16.0, the version that Hugging Face's
tokenizers know letters and numbers by. Run it in this folder when that version moves:

    pip install unicodedata2==16.0.0 && python3 make_tables.py
"""
import unicodedata2 as u

HEAD = """/* SPDX-License-Identifier: MIT */
/* %s
 * Made by make_tables.py from Unicode %s; don't edit. */
#include "unicode.h"

/* clang-format off */
"""
CODES = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def runs(value):
    """[first, last, value] of runs of codes with the same true value."""
    out = []
    for c in CODES:
        v = value(c)
        if v and out and out[-1][1] == c - 1 and out[-1][2] == v:
            out[-1][1] = c
        elif v:
            out.append([c, c, v])
    return out


def table(kind, name, rows):
    lines, line = [f"const {kind} {name}[] = {{"], "   "
    for row in rows:
        if len(line) + len(row) > 118:
            lines.append(line)
            line = "   "
        line += " " + row + ","
    return "\n".join(lines + [line, "};", f"const unsigned {name}_count = {len(rows)};", ""])


def classes():
    rows = runs(lambda c: {"L": 1, "N": 2}.get(u.category(chr(c))[0], 0))
    marks = runs(lambda c: u.combining(chr(c)))
    with open("unicode_classes.c", "w") as f:
        f.write(HEAD % ("Letters (1) and numbers (2), and canonical combining classes, as runs of codes.", u.unidata_version))
        f.write(table("struct unicode_run", "unicode_classes", ["{0x%X,0x%X,%d}" % tuple(r) for r in rows]) + "\n")
        f.write(table("struct unicode_run", "unicode_combining", ["{0x%X,0x%X,%d}" % tuple(r) for r in marks]))


def nfc():
    pairs = []
    for c in CODES:
        d = u.decomposition(chr(c))
        if d and not d.startswith("<"):
            parts = [int(x, 16) for x in d.split()]
            pairs.append((c, parts[0], parts[1] if len(parts) > 1 else 0))
    composing = [i for i, (c, a, b) in enumerate(pairs) if b and u.normalize("NFC", chr(a) + chr(b)) == chr(c)]
    composing.sort(key=lambda i: (pairs[i][1], pairs[i][2]))
    with open("unicode_nfc.c", "w") as f:
        f.write(HEAD % ("Canonical decompositions {code, first, second or 0}, by code; and which compose, by first and\n"
                        " * second. Hangul isn't here: arithmetic does it.", u.unidata_version))
        f.write(table("struct unicode_pair", "unicode_pairs", ["{0x%X,0x%X,0x%X}" % p for p in pairs]) + "\n")
        f.write(table("uint16_t", "unicode_composing", [str(i) for i in composing]))


classes()
nfc()
