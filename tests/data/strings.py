# SPDX-License-Identifier: MIT
"""Strings that tokenizers get wrong, generated: the same list for the same seed and Python's Unicode 14 tables (3.11).

generate(seed) -> [(category, bytes)]. Valid UTF-8 in every category but "invalid". No NUL anywhere, no code point newer
than Unicode 14. Strings with special tokens come from special_strings(), since each vocabulary names its own.
"""
import random
import unicodedata

from texts import BLOCKS, CODE, PASSAGES, STORY, assigned

SPACES = [" ", " ", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\v", "\f", "\u00a0", "\u2003", "\u3000", "\u2028",
          "\u2029",
          "\u0085", "\u1680", "\u202f", "\u200b", "\ufeff", "\u180e", "\x1c",
          "\x1f"]          # the last five are not \s: that is the point
PIECES = ["a", "The", "hello", "WORLD", "x1", "42", "3", "1999", "'s", "'S", "'t", "'re", "'VE", "'ll", "'d", "’s", "'",
          '"', "!", "?!", "...", "--",
          "_", "__init__", "->", "()", "{}", "//", "/*", "#", "é", "ñ", "ß", "中", "漢字", "ра", "שלום", "مرحبا", "ก", "क्ष",
          "😀", "½", "²", "Ⅷ",
          "٣", "〇", "e\u0301", "\u0301", "\u200d", "ﬁ", "İ", "ſ", "K", "𝟙", "\U0001F1E9\U0001F1EA", "\ufffd"]
EMOJI = ["👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏳️‍🌈", "🏴‍☠️", "❤️‍🔥", "👍🏻👍🏼👍🏽👍🏾👍🏿", "🇩🇪🇫🇷🇯🇵🇺🇸", "1️⃣2️⃣#️⃣*️⃣",
         "🏴\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F",
         "🧑‍🤝‍🧑", "👁️‍🗨️", "☺️☺︎☺", "🫠🫶🫡", "🤷🏿‍♀️", "🐻‍❄️", "✌🏼", "🧑🏻‍❤️‍💋‍🧑🏿", "👨‍👩‍👧", "⌚️", "🅰️", "㊗️", "🇦", "🇦🇦🇦",
         "👶🏽\u200d"]
URLS = ["https://example.org/a/b.html?q=1&lang=de#top", "http://user:pa%20ss@192.168.0.1:8080/x",
        "ftp://[::1]/~me/file.tar.gz",
        "mailto:jane.doe+tag@mail.example.co.uk", "www.example.com/Path_(disambiguation)", "https://例え.テスト/パス?キー=値",
        "s3://bucket/key=2024-01-31/part-00001.parquet",
        "git@example.org:owner/repo.git", "data:text/plain;base64,SGVsbG8=", "//cdn.example/lib@1.2.3/dist/x.min.js",
        "file:///C:/Users/Me/My%20Documents/", "urn:isbn:0451450523"]
INVALID = [b"\xff", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
           b"\xed\xa0\x80", b"\xed\xbf\xbf",
           b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80",
           b"\xfc\x84\x80\x80\x80\x80", b"\xfe\xff", b"\x80", b"\xbf\xbf",
           b"\xe2\x82", b"\xe2", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xf0", b"\xe2\x82a", b"\xf0\x9f\x98\xe2\x82\xac", b"\xc3",
           b"\xc3\xc3\xa9", b"\xc3\x28", b"\xe4\xb8\xe4\xb8\xad",
           b"\xf0\x9f\x98\x80\x80", b"\xef\xbf\xbd\xff", b"\xed\x9f\xbf\xee\x80\x80", b"\xf4\x8f\xbf\xbf\xf4\x8f\xbf",
           b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"]


def scripts(rng):
    for name, first, last in BLOCKS:
        letters = [chr(c) for c in range(first, last + 1) if assigned(c)]
        for n in (1, 3, 8, 20):
            yield "".join(rng.choice(letters) for _ in range(n))
        yield " ".join("".join(rng.choice(letters) for _ in range(rng.randint(1, 6))) for _ in range(5))
        yield "a" + rng.choice(letters) + " " + rng.choice(letters) + "1" + rng.choice(letters) + "'s" + rng.choice(letters) + "\n" + rng.choice(letters)


def passages(rng):
    for text in PASSAGES.values():
        yield from (text, " " + text, text.upper(), unicodedata.normalize("NFD", text),
                    unicodedata.normalize("NFC", text)[::-1])
        yield text.replace(" ", "\n")
        start = rng.randrange(len(text) // 2)
        yield text[start:start + 15] + "  " + text


def whitespace(rng):
    for s in SPACES:
        yield from (s, s * 2, s * 5, "a" + s + "b", "a" + s * 3 + "b", s + "x", "x" + s, "1" + s * 2 + "2", s * 3 + "!",
                    "." + s * 2 + "\n", " " + s + " 'll")
    for _ in range(120):
        yield "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 12)))
    for _ in range(120):
        yield "".join(rng.choice(SPACES) if rng.random() < 0.6 else rng.choice(PIECES) for _ in range(rng.randint(3, 20)))


def digits(rng):
    for n in list(range(1, 13)) + [16, 17, 31, 64]:
        run = "".join(rng.choice("0123456789") for _ in range(n))
        yield from (run, " " + run, "a" + run + "b", run + "  " + run, "-" + run + ".")
    yield from ("3.14159", "1,234,567.89", "0x1F600", "1e-9", "2024-02-29T23:59:59.999Z", "+49 (0)30 123 45", "12:30",
                "50%", "$1.99", "1st 2nd 3rd", "v1.2.3-rc4",
                "x²+y³", "½ cup", "1½", "ⅣⅨ", "①②③", "٠١٢٣٤٥", "१२३", "๑๒๓", "１２３", "〇一二三", "𝟎𝟏𝟐", "൰൱", "፩፪፫", "㉑㊿",
                "¼¾⅞", "1 2 3", "1  2", "a  1", "a  b", " 1", "  1", "12\n34", "1'2", "9's")


def contractions(rng):
    for tail in ("s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "vE", "M", "LL", "Ll", "D", "x", "ſ", "K"):
        for apostrophe in ("'", "’", "ʼ"):
            yield from ("we" + apostrophe + tail, "WE" + apostrophe + tail + "x", apostrophe + tail,
                        " " + apostrophe + tail + " ", "1" + apostrophe + tail, "!" + apostrophe + tail)
    yield from ("I'd've thought y'all'd'ven't", "rock 'n' roll", "''s", "'''", "'s's's", "don''t", "O'Reilly's",
                "DON'T SHOUT, IT'S LATE", "\n'll", "\t're", "é's", "中's")


def code(rng):
    for text in CODE.values():
        yield from (text, text.replace("    ", "\t"), text.replace("\n", "\r\n"))
        for _ in range(4):
            a = rng.randrange(len(text) - 1)
            yield text[a:a + rng.randint(5, 60)]


def long_words(rng):
    yield from ("a" * 5000, " " * 3000, "\n" * 1500, "ab" * 2000, "=" * 2000, "中" * 1000, "é" * 1500, "\u0301" * 500,
                "😀" * 500, "1" * 1000)
    yield "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5000))
    yield "".join(rng.choice("etaoinshrdluETAOIN") for _ in range(3000))
    yield "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(400))
    yield from ("pneumonoultramicroscopicsilicovolcanoconiosis", "Donaudampfschifffahrtsgesellschaftskapitän" * 20,
                "_" * 257, "aA" * 300, "A" * 256, "-" * 100 + ">")


def combining(rng):
    marks = [chr(c) for c in range(0x300, 0x370)]
    for _ in range(60):
        yield "".join(rng.choice("aeiouAEIOUnscz kK1") + "".join(rng.choice(marks) for _ in range(rng.randint(0,
            4))) for _ in range(rng.randint(1, 8)))
    yield from ("각", "\u1100\u1161\u11a8", "\u1100\u1161", "가\u11a8", "\u212b", "\u2126", "\u0958", "\u1e9b\u0323",
                "\ufb1d", "q\u0307\u0323", "q\u0323\u0307", "\u0344", "\u0f73",
                "\U0001d15e", "\ufa0e\ufa10", "e\u0301\u0301", "\u0300a", "a\u0315\u0300\u05ae\u0062", "\u0b92\u0bd7",
                "ཱི", "\u1112\u116f\u11b6")


def fuzz(rng):
    everything = [chr(c) for c in range(1, 0x30000) if assigned(c)]
    for _ in range(350):
        yield "".join(rng.choice(PIECES) if rng.random() < 0.7 else rng.choice(SPACES) for _ in range(rng.randint(2, 25)))
    for _ in range(150):
        yield "".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 60)))
    for _ in range(150):
        yield "".join(rng.choice(everything) for _ in range(rng.randint(1, 20)))


def invalid(rng):
    yield from INVALID
    for bad in INVALID:
        yield b"a " + bad + b" b"
    for byte in range(0x80, 0x100):
        yield b"x" + bytes([byte]) + b"y"
    joined = [t.encode() for t in PASSAGES.values()]
    for _ in range(100):
        text = bytearray(rng.choice(joined)[:80])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            if rng.random() < 0.5:
                del text[at]
            else:
                text[at] = rng.randint(1, 255)
        yield bytes(text)


def generate(seed):
    out = [("plain", b""), ("plain", STORY.encode())] + [("plain", p.encode()) for p in STORY.split("\n\n")]
    out += [("control", bytes([c])) for c in range(1, 128)] + [("control",
        b"a" + bytes([c]) + b"b") for c in list(range(1, 32)) + [127]]
    out += [("control", b"!" + bytes([c]) + b"! -" + bytes([c]) * 2 + b"-") for c in list(range(1,
        32)) + [127]]   # do neighbours of a lost byte merge?
    out += [("control", s.encode()) for s in ("\U00050000", "!\U00050000!", "a\U00090000b",
                                              "\U000d1234\U000e1234 x")]        # planes that use F1 and F2
    out += [("control", chr(c).encode()) for c in list(range(0x80, 0xA0)) + [0xAD, 0x61C, 0x200B, 0x200C, 0x200D, 0x200E,
        0x202E, 0x2060, 0x2066, 0xFEFF, 0xFFFC, 0xFFFD, 0xF0000, 0x10FFFD]]
    out += [("emoji", (a + e + b).encode()) for e in EMOJI for a,
            b in (("", ""), ("hi ", "!"), ("a", "a 1"))] + [("url",
                u.encode()) for u in URLS + ["see (" + u + "), or" for u in URLS]]
    for maker in (scripts, passages, whitespace, digits, contractions, code, long_words, combining, fuzz, invalid):
        rng = random.Random(f"{seed}/{maker.__name__}")        # each category keeps its strings when another one grows
        out += [(maker.__name__, s if isinstance(s, bytes) else s.encode()) for s in maker(rng)]
    seen, unique = set(), []
    for category, text in out:
        assert b"\0" not in text
        if text not in seen:
            seen.add(text)
            unique.append((category, text))
    return unique


def special_strings(seed, tokens):
    """Texts with special tokens in them, whole, adjacent, damaged, nested; to be encoded both ways."""
    rng = random.Random(f"{seed}/special")
    out = []
    for t in tokens:
        out += [t, "a" + t + "b", " " + t + " ", t + t, t[:-1], t[1:], t.upper(), "<" + t + ">", t + "\n",
                "  " + t + "  1", t[:-1] + " " + t[-1:], "é" + t + "'s"]
    for _ in range(80):
        out.append("".join(rng.choice(list(tokens) + PIECES + SPACES[:9]) for _ in range(rng.randint(2, 12))))
    out.append("<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\nHi, what's 2+2?<|im_end|>\n<|im_start|>assistant\n")
    return [("special", s.encode()) for s in dict.fromkeys(out)]
