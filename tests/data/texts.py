# SPDX-License-Identifier: MIT
"""Text that the oracle scripts share: short passages written for this project, so that nobody's corpus is needed.

PASSAGES  {name: sentence} in some fifty languages and scripts
CODE      {name: snippet} in a dozen programming languages
STORY     English prose, long enough to cut prompts of 600 tokens from
BLOCKS    [(name, first, last)] ranges of code points, one or more for each major script
assigned  keeps code points that Unicode 14 or older assigns, so that no answer depends on how new a library's tables are
"""
import unicodedata

PASSAGES = {
    "english": "The night train was late again, and nobody on the platform seemed to mind.",
    "french": "Le garçon a mangé les crêpes de l’hôtel; c’était « délicieux », n’est-ce pas ?",
    "german": "Übermütige Füchse springen über den trägen Hund – größer als Straßenlärm.",
    "spanish": "¿Dónde está el niño? ¡Mañana irá a la montaña con su abuelo!",
    "portuguese": "A avó não quis vender o pão à irmã do João; preferiu dá-lo às crianças.",
    "italian": "Perché la città è così bella di sera? Chissà, è già l'una.",
    "polish": "Zażółć gęślą jaźń, powiedział źrebak do łabędzia.",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "hungarian": "Az őrült író gyűrűje tűnt el az éjszakában.",
    "romanian": "Și totuși țăranul își amintește de câinele său.",
    "turkish": "İstanbul'da ılık bir gece; çocuklar şarkı söylüyor, ığdırlı öğretmen gülüyor.",
    "vietnamese": "Tiếng Việt có nhiều dấu: ngã, hỏi, nặng; người ta viết rất nhanh.",
    "icelandic": "Þórður át ýsu og æðarfugl í gær á Seyðisfirði.",
    "finnish": "Yö oli pitkä, mutta järvellä soudettiin hyvässä säässä.",
    "latvian": "Ķirši un āboli aug dārzā, bet ģimene ēd šķiņķi.",
    "greek": "Η γάτα κοιμάται πάνω στο παλιό τραπέζι· γιατί όχι;",
    "polytonic": "Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ὁ λόγος ἦν καλός.",
    "russian": "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "ukrainian": "Їжак з’їв ґрунтовий ґанок, але ще хоче їсти.",
    "bulgarian": "Под южно дърво цъфтеше синя люляка.",
    "serbian": "Љубав је њихова џез песма у ноћи ђака.",
    "georgian": "დილა მშვიდობისა, როგორ ხართ დღეს?",
    "armenian": "Բարև ձեզ, ինչպե՞ս եք այսօր։",
    "hebrew": "שלום עולם, הילד אכל תפוח בשעה 7:30.",
    "hebrew_points": "בְּרֵאשִׁית הָיָה יוֹם טוֹב",
    "arabic": "ذهب الولد إلى المدرسة في الساعة ٧:٣٠ صباحًا، أليس كذلك؟",
    "persian": "می‌خواهم کتاب‌های خوب بخوانم؛ چای هم هست.",
    "urdu": "یہ لڑکا روز سکول جاتا ہے۔",
    "syriac": "ܫܠܡܐ ܥܠܡܐ",
    "hindi": "लड़का किताब पढ़ता है और क्षमा माँगता है। १२३४",
    "bengali": "ছেলেটি প্রতিদিন স্কুলে যায়। ৫৬৭",
    "tamil": "பையன் தினமும் பள்ளிக்குச் செல்கிறான்.",
    "telugu": "అబ్బాయి ప్రతిరోజూ బడికి వెళ్తాడు.",
    "kannada": "ಹುಡುಗ ಪ್ರತಿದಿನ ಶಾಲೆಗೆ ಹೋಗುತ್ತಾನೆ.",
    "malayalam": "കുട്ടി എല്ലാ ദിവസവും സ്കൂളിൽ പോകുന്നു.",
    "gujarati": "છોકરો રોજ શાળાએ જાય છે.",
    "punjabi": "ਮੁੰਡਾ ਹਰ ਰੋਜ਼ ਸਕੂਲ ਜਾਂਦਾ ਹੈ।",
    "sinhala": "ළමයා හැමදාම පාසල් යනවා.",
    "thai": "เด็กชายไปโรงเรียนทุกวัน เวลา ๗ โมงเช้า",
    "lao": "ເດັກນ້ອຍໄປໂຮງຮຽນທຸກມື້",
    "khmer": "ក្មេងប្រុសទៅសាលារៀនរាល់ថ្ងៃ។",
    "burmese": "ကောင်လေးက နေ့တိုင်း ကျောင်းသွားတယ်။",
    "tibetan": "བཀྲ་ཤིས་བདེ་ལེགས།",
    "amharic": "ልጁ በየቀኑ ወደ ትምህርት ቤት ይሄዳል።",
    "cherokee": "ᎣᏏᏲ ᏙᎯᏧ",
    "inuktitut": "ᐊᐃᓐᖓᐃ ᐃᓄᒃᑎᑐᑦ",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ",
    "chinese": "昨天晚上火车又晚点了，站台上好像没有人在意。第12次列车？",
    "traditional": "圖書館裡沒有人說話，只聽見雨聲。「真的嗎？」",
    "japanese": "吾輩は眠い。カタカナとひらがなと漢字を混ぜて、１２３円です！",
    "halfwidth": "ﾊﾝｶｸ ｶﾀｶﾅ ＡＢＣ　ａｂｃ",
    "korean": "소년은 매일 학교에 갑니다. 오늘은 3월 14일이에요!",
    "swahili": "Mvulana huenda shuleni kila siku, ng'ombe wapi?",
    "hawaiian": "Ua ʻai ke keiki i ka iʻa ma ka hale kūʻai.",
    "math": "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, ∑ᵢ₌₀ⁿ i² ≠ ∫√x dx ± ½ ≤ ∞; 𝒜𝔅𝟙𝟚",
    "symbols": "€5 £6 ¥700 ₹8 © ® ™ § ¶ † ‡ • … ‰ № ℃ → ⇒ ■ ◆ ♥ ♪ ✓ ①②③ Ⅷ ⅷ",
    "quotes": "“curly” ‘single’ „low“ «guillemets» ‹one› – en — em ― bar ‑ hyphen",
    "box": "┌──┬──┐\n│ a│ b│\n└──┴──┘ ░▒▓█",
    "ipa": "ˈlæŋɡwɪdʒ ɪz ə ˈvaɪrəs, ðə θɪŋ ɪz ʃʊə",
}

CODE = {
    "c": 'static int\nring_push(struct ring *r, uint64_t v)\n{\n\tif (r->head - r->tail == r->mask + 1)\n\t\treturn -1;\t/* full */\n'
         '\tr->slot[r->head++ & r->mask] = v;\n\treturn 0;\n}\n',
    "python": 'def quantile(xs, q=0.99):\n    """Nearest rank."""\n    xs = sorted(xs)\n    return xs[min(len(xs) - 1, int(q * len(xs)))]\n\n\n'
              'print(f"{quantile(range(100)):.2f}")  # 99.00\n',
    "js": "const sum = (...xs) => xs.reduce((a, b) => a + b, 0);\nfetch(`/v1/${id}?n=10`).then(r => r.json()).catch(e => { throw e; });\n",
    "lua": "local t = setmetatable({}, {__index = function(t, k) return k * 2 end})\nfor i = 1, 10 do print(t[i] ~= nil and i .. '!' or \"no\") end\n",
    "rust": "impl<T: Clone + 'static> Stack<T> {\n    pub fn pop(&mut self) -> Option<T> { self.items.pop() }\n}\nlet x: &'a str = r#\"raw\"#;\n",
    "go": "func main() {\n\tch := make(chan int, 4)\n\tgo func() { defer close(ch); ch <- 1 }()\n\tfor v := range ch {\n\t\tfmt.Printf(\"%d\\n\", v)\n\t}\n}\n",
    "java": "public final class Main {\n    public static void main(String[] args) throws IOException {\n        System.out.println(args.length > 0 ? args[0] : \"none\");\n    }\n}\n",
    "sql": "SELECT r.id, count(*) FILTER (WHERE t.gap_ns > 5e7) AS slow\n  FROM request r JOIN token t USING (run_id)\n WHERE r.class = 'chat' GROUP BY 1 HAVING slow >= 3;\n",
    "shell": "#!/bin/sh\nset -eu\nfor f in \"$@\"; do\n  [ -f \"$f\" ] || { echo \"no $f\" >&2; exit 1; }\n  awk -F'\\t' '{s+=$2} END{print s/NR}' \"$f\" | tee -a out.txt\ndone\n",
    "html": "<!doctype html>\n<html lang=\"en\"><body class='a b'>\n  <p>5 &lt; 6 &amp;&amp; x&nbsp;= \"y\"</p><!-- note --><br/>\n</body></html>\n",
    "json": '{"name": "lathe", "n": [1, 2.5, -3e-7, null, true], "s": "a\\n\\u00e9\\"", "deep": {"k": {"k": {}}}}\n',
    "yaml": "jobs:\n  build:\n    steps:\n      - run: |\n          make -j2\n          ctest\n    env: {CC: clang, N: 0x1F}\n",
    "make": "%.o: %.c\n\t$(CC) $(CFLAGS) -c $< -o $@\n\n.PHONY: clean\nclean:;\trm -f *.o\n",
    "regex": r"^(?P<y>\d{4})-(?:0[1-9]|1[0-2])(?!-)\s*[^\]\\]+?\b\$?$" + "\n",
    "latex": "\\begin{equation}\n  \\sum_{i=1}^{n} x_i^2 \\leq \\frac{1}{2}\\left\\|A\\right\\|_F\n\\end{equation}\n",
    "windows": "@echo off\r\nset PATH=C:\\Tools\\bin;%PATH%\r\nif errorlevel 1 goto :eof\r\n\r\n",
    "diff": "--- a/x.c\n+++ b/x.c\n@@ -1,3 +1,4 @@\n int a;\n-int b;\n+int b = 1;\n+\tint c;\n",
    "asm": "loop:\n\tmov     eax, DWORD PTR [rdi+rcx*4]\n\tadd     rcx, 1\n\tjne     .L3          # 0x7fff\n",
}

STORY = (
    "The workshop stood at the end of the lane, where the tarmac gave way to gravel and the gravel to mud. Every morning at "
    "half past six Martha unlocked the door, lit the stove, and swept yesterday's shavings into a heap beside the lathe. She had "
    "bought the machine from a school that was closing; it was older than she was, and better made. \"It only ever does one "
    "thing,\" she used to tell visitors, \"but it does it without complaining.\" The visitors came mostly in summer. They asked "
    "what she was making, and she told them: bowls, spindles, chair legs, once a set of 32 chessmen for a man in Leeds who paid "
    "£480 and never wrote again. In winter nobody came, and she worked with the radio on.\n\nOn the first Monday of February 1987 a "
    "letter arrived. It was typed, on heavy paper, and it said that a Mr. Aldous Finch of the county museum would like to see the "
    "lathe, since there was reason to believe that it had belonged to the instrument maker Josiah Pell. Martha read it twice, put "
    "it under the glue pot, and forgot about it until Thursday, when a small green car stopped at the gate and a tall thin man "
    "unfolded himself from it.\n\n\"You must be Mrs. Hale,\" he said.\n\n\"Miss,\" said Martha. \"You're letting the cold in.\"\n\nHe "
    "looked at the machine for a long time without touching it. Then he took a torch from his pocket, lay down on the floor, and "
    "shone the light at the underside of the bed. There, between two bolts, someone had scratched a row of letters and a date: "
    "J.P. 1839. Mr. Finch made a noise like a kettle. He explained, still lying on his back, that Pell had built telescopes for "
    "three observatories; that his tools had been sold to pay his debts; and that until this very minute everybody had thought "
    "that they were lost. \"We would of course pay,\" he said. \"The museum has a fund. It isn't large, but it's there for exactly "
    "this sort of thing.\"\n\nMartha put the kettle on. She thought about the machine in a glass case, with a card beside it and a "
    "rope around it, turning nothing. She thought about the roof, which leaked in two places, and about the price of ash. \"And what "
    "would it do there?\" she asked at last.\n\n\"Do?\" said Mr. Finch. \"It would be looked at.\"\n\n\"Well,\" said Martha, \"I don't "
    "believe it would like that.\" She handed him a mug and, because he seemed a decent man, showed him how to hold the gouge. By "
    "four o'clock he had made something that was very nearly a candlestick. He drove home with it on the seat beside him, and the "
    "report that he wrote that evening said only that the rumour could not be confirmed. It was the one untrue sentence of a long "
    "career, and he never regretted it.\n\nYears later, when the lane had been paved and the workshop had a sign, a girl of eleven "
    "asked why there was a date under the machine. Martha told her the story from the beginning. \"So who does it belong to?\" the "
    "girl wanted to know. \"Whoever is using it,\" said Martha, and stepped aside.")

BLOCKS = [
    ("ascii", 0x20, 0x7E), ("latin1", 0xA0, 0xFF), ("latin_extended", 0x100, 0x24F), ("ipa", 0x250, 0x2FF),
    ("combining", 0x300, 0x36F),
    ("greek", 0x370, 0x3FF), ("cyrillic", 0x400, 0x52F), ("armenian", 0x531, 0x58F), ("hebrew", 0x591, 0x5F4),
    ("arabic", 0x606, 0x6FF),
    ("syriac", 0x700, 0x74F), ("thaana", 0x780, 0x7B1), ("nko", 0x7C0, 0x7FF), ("samaritan", 0x800, 0x83E),
    ("devanagari", 0x900, 0x97F),
    ("bengali", 0x980, 0x9FE), ("gurmukhi", 0xA01, 0xA76), ("gujarati", 0xA81, 0xAFF), ("oriya", 0xB01, 0xB77),
    ("tamil", 0xB82, 0xBFA),
    ("telugu", 0xC00, 0xC7F), ("kannada", 0xC80, 0xCF2), ("malayalam", 0xD00, 0xD7F), ("sinhala", 0xD81, 0xDF4),
    ("thai", 0xE01, 0xE5B),
    ("lao", 0xE81, 0xEDF), ("tibetan", 0xF00, 0xFDA), ("myanmar", 0x1000, 0x109F), ("georgian", 0x10A0, 0x10FF),
    ("jamo", 0x1100, 0x11FF),
    ("ethiopic", 0x1200, 0x139F), ("cherokee", 0x13A0, 0x13FF), ("canadian", 0x1400, 0x167F), ("ogham", 0x1680, 0x169C),
    ("runic", 0x16A0, 0x16F8),
    ("tagalog", 0x1700, 0x171F), ("khmer", 0x1780, 0x17F9), ("mongolian", 0x1800, 0x18AA), ("limbu", 0x1900, 0x194F),
    ("balinese", 0x1B00, 0x1B7E),
    ("vietnamese", 0x1E00, 0x1EFF), ("greek_extended", 0x1F00, 0x1FFE), ("punctuation", 0x2010, 0x205E),
    ("super_sub", 0x2070, 0x209C),
    ("currency", 0x20A0, 0x20BF), ("letterlike", 0x2100, 0x214F), ("number_forms", 0x2150, 0x218B),
    ("arrows", 0x2190, 0x21FF),
    ("operators", 0x2200, 0x22FF), ("enclosed", 0x2460, 0x24FF), ("dingbats", 0x2700, 0x27BF), ("braille", 0x2800, 0x28FF),
    ("glagolitic", 0x2C00, 0x2C5F), ("coptic", 0x2C80, 0x2CFF), ("tifinagh", 0x2D30, 0x2D7F),
    ("cjk_punctuation", 0x3001, 0x303F),
    ("hiragana", 0x3041, 0x309F), ("katakana", 0x30A0, 0x30FF), ("bopomofo", 0x3105, 0x312F), ("cjk", 0x4E00, 0x9FFC),
    ("cjk_a", 0x3400, 0x4DBF),
    ("yi", 0xA000, 0xA4C6), ("vai", 0xA500, 0xA62B), ("hangul", 0xAC00, 0xD7A3), ("compatibility", 0xF900, 0xFAD9),
    ("presentation", 0xFB00, 0xFDFF),
    ("fullwidth", 0xFF01, 0xFFEE), ("private", 0xE000, 0xE0FF), ("linear_b", 0x10000, 0x100FA),
    ("gothic", 0x10330, 0x1034A), ("old_persian", 0x103A0, 0x103D5),
    ("brahmi", 0x11000, 0x11075), ("cuneiform", 0x12000, 0x12399), ("hieroglyphs", 0x13000, 0x1342E),
    ("music", 0x1D100, 0x1D1E8),
    ("math_letters", 0x1D400, 0x1D7FF), ("adlam", 0x1E900, 0x1E95F), ("emoji", 0x1F300, 0x1F64F),
    ("emoji_more", 0x1F680, 0x1F6FC),
    ("emoji_extra", 0x1F900, 0x1F9FF), ("cjk_b", 0x20000, 0x2A6D6), ("tags", 0xE0020, 0xE007F),
    ("variation", 0xFE00, 0xFE0F),
]


def assigned(code):
    """True for a code point that Unicode 14 assigns to a character (surrogates and noncharacters are not)."""
    return 0 < code < 0x110000 and unicodedata.category(chr(code)) not in ("Cn", "Cs")
