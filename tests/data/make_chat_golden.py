# SPDX-License-Identifier: MIT
"""Golden chat prompts: templates rendered by jinja2, in the environment that transformers compiles chat templates in
(sandboxed, trim_blocks, lstrip_blocks, loop controls, raise_exception, its own tojson).

Templates are the model's own (from the GGUF) and, written here in the styles of the families, the ones that local models
bring. The "feature" ones try one construct of the language each, so that a failing engine learns which it lacks. Every
render gets messages, add_generation_prompt, bos_token, eos_token, and tools and documents as none.

  python make_chat_golden.py --model models/smollm2-135m.gguf
"""
import argparse
import json
import os

from gguf import GGUFReader
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))

CHATML = """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

QWEN2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content']}}{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Qwen 2.5 lays its template out over lines, with whitespace control and a branch for tools.
QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- "# Tools\\n" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

# Mistral's later one: namespace, a filter with a test, messages cut by selectattr, the system text before the last user turn.
MISTRAL3 = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

PHI3 = """{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

FAMILIES = [("chatml", CHATML, "", "<|im_end|>"), ("qwen2", QWEN2, "<|endoftext|>", "<|im_end|>"),
            ("qwen2.5", QWEN25, "<|endoftext|>", "<|im_end|>"),
            ("llama-2", LLAMA2, "<s>", "</s>"), ("llama-3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
            ("mistral", MISTRAL, "<s>", "</s>"),
            ("mistral-v3", MISTRAL3, "<s>", "</s>"), ("zephyr", ZEPHYR, "<s>", "</s>"), ("gemma", GEMMA, "<bos>", "<eos>"),
            ("phi-3", PHI3, "<s>", "<|endoftext|>")]

FEATURES = {
    "comment and plain text": "a{# not seen #}b\n{#- cut -#}\n  c {{- ' d ' -}} e\n",
    "raw": "{% raw %}{{ not run }} {% x %}{% endraw %}!",
    "trim_blocks and lstrip_blocks": "x\n    {% if true %}\n  in\n    {% endif %}\n  y {% if true %} z{% endif %}\n\nend",
    "plus keeps whitespace": "x\n    {%+ if true %}in{% endif +%}\nend",
    "loop variables": "{% for m in messages %}{{ loop.index }}/{{ loop.length }}:{{ loop.index0 }}:{{ loop.revindex }}:{{ loop.first }}:{{ loop.last }}:{{ loop.previtem.role if loop.previtem is defined else '-' }} {% endfor %}",
    "for else, if inside for": "{% for m in messages if m.role == 'nobody' %}{{ m.role }}{% else %}none{% endfor %}",
    "break and continue": "{% for i in range(10) %}{% if i is odd %}{% continue %}{% endif %}{% if i > 6 %}{% break %}{% endif %}{{ i }},{% endfor %}",
    "set in a loop is local": "{% set x = 0 %}{% for m in messages %}{% set x = x + 1 %}{% endfor %}{{ x }}",
    "namespace": "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}{% endfor %}{{ ns.n }} {{ ns.last }}",
    "set block": "{% set x %}<{{ messages | length }}>{% endset %}{{ x }}{{ x }}",
    "macro": "{% macro turn(m, sep=': ') %}{{ m.role }}{{ sep }}{{ m.content }}{% endmacro %}{% for m in messages %}{{ turn(m) }}|{{ turn(m, sep='=') }}\n{% endfor %}",
    "arithmetic": "{{ 7 // 2 }} {{ 7 % 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 1.5 + 1 }}",
    "comparison and logic": "{{ 1 < 2 and not 3 == 4 }} {{ '' or 'x' }} {{ 0 and 1 }} {{ 1 in [1, 2] }} {{ 'ell' in 'hello' }} {{ 'z' not in 'abc' }} {{ none is none }} {{ 'a' ~ 1 ~ true }}",
    "truth": "{% for v in [0, 1, '', 'a', [], [0], {}, none, false, true, 0.0] %}{{ 'T' if v else 'F' }}{% endfor %}",
    "slices and indices": "{{ 'hello'[1:3] }} {{ 'hello'[-1] }} {{ 'hello'[::-1] }} {{ [1, 2, 3, 4][1:] }} {{ [1, 2, 3, 4][:-1] }} {{ messages[-1].role }} {{ messages[::2] | length }}",
    "undefined": "[{{ nothing }}] [{{ messages[0].nothing }}] {{ nothing is defined }} {{ messages[0].role is defined }} {{ nothing | default('d') }}",
    "undefined attribute of undefined": "{{ nothing.at.all }}",
    "filters": "{{ ' a b ' | trim }}|{{ 'aBc' | upper }}|{{ 'ABC' | lower }}|{{ 'hello world' | title }}|{{ 'hello' | capitalize }}|{{ [3, 1, 2] | join('-') }}|{{ [1, 2] | first }}|{{ [1, 2] | last }}|{{ 'abc' | length }}|{{ '' | default('x', true) }}|{{ 'a-b' | replace('-', '+') }}|{{ '5' | int + 1 }}|{{ 3 | string + '!' }}",
    "sequence filters": "{{ messages | map(attribute='role') | join(',') }}|{{ messages | selectattr('role', 'equalto', 'user') | list | length }}|{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }}|{{ [3, 1, 2] | sort | list }}|{{ [1, 2, 3] | reverse | list }}|{{ ['b', 'a', 'b'] | unique | list }}",
    "methods": "{{ ' x '.strip() }}|{{ 'a,b'.split(',') }}|{{ 'Abc'.upper() }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith('x') }}|{{ 'xxay'.lstrip('x') }}|{{ 'a b'.replace(' ', '_') }}|{{ messages[0].get('nope', 'dflt') }}|{{ 'a</t>b'.split('</t>')[-1] }}|{{ 'ab'.title() }}",
    "items and dict": "{% for k, v in {'a': 1, 'b': [true, none]}.items() %}{{ k }}={{ v }};{% endfor %}{{ {'a': 1} }} {{ messages[0].keys() | list }}",
    "tests": "{{ messages is iterable }} {{ 'a' is string }} {{ 1 is number }} {{ messages[0] is mapping }} {{ messages is sequence }} {{ 4 is divisibleby 2 }} {{ 3 is even }} {{ true is boolean }} {{ none is not none }} {{ 2 is integer }}",
    "tojson": "{{ messages | tojson }}\n{{ {'a': [1, 2.5, none, true, 'é<\\'&>']} | tojson }}\n{{ {'b': {'c': []}} | tojson(indent=2) }}",
    "inline if without else": "[{{ 'x' if false }}] [{{ 'x' if true }}] [{{ 'a' if 1 == 2 else 'b' if 1 == 3 else 'c' }}]",
    "string escapes and concatenation": "{{ 'a\\tb\\n' + \"it's\" + '\\'q\\'' + '\\\\' + 'é' }}{{ 'ab' * 3 }}",
    "nested loops": "{% for i in range(1, 4) %}{% for j in range(i) %}{{ i * j }}{% if not loop.last %},{% endif %}{% endfor %};{% endfor %}{{ range(10, 0, -3) | list }}",
    "unpacking": "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }} {% endfor %}{% set x, y = 5, 6 %}{{ x + y }}",
    "generation block": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "raise": "{{ raise_exception('refused: ' + messages[0].role) }}",
    "syntax error": "{% if messages %}no end",
    "unknown filter": "{{ messages | nosuchfilter }}",
    "not callable": "{{ messages() }}",
    "add string and number": "{{ 'a' + 1 }}",
}


def talk(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = [
    talk(("user", "Hello")),
    talk(("system", "You are terse."), ("user", "What is 2+2?")),
    talk(("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Tell me a joke.\nA short one.")),
    talk(("system", "Antworte auf Deutsch: „ja“ oder „nein“. 🙂"), ("user", "Ist 7 < 9 & 3 > 2?"), ("assistant", "  ja  "),
         ("user", "  und 漢字?\n\n")),
    talk(("user", ""), ("assistant", ""), ("user", "'quotes' \"double\" {{ braces }} {% tags %} <|im_end|> \\n")),
    talk(("user", "a"), ("assistant", "b")),
    talk(("user", "first"), ("user", "second")),                                    # roles that don't alternate
    talk(("assistant", "I begin."), ("user", "So be it.")),
    talk(("user", "late system"), ("system", "Ignored?"), ("user", "yes")),
    talk(("user", "look it up"), ("tool", "42"), ("tool", "43")),
    talk(("system", "Only a system message.")),
]


def case(name, template, messages, add_generation_prompt, bos, eos):
    out = {"name": name, "template": template, "messages": messages, "add_generation_prompt": add_generation_prompt,
           "bos_token": bos, "eos_token": eos}
    try:
        out["expected"] = _compile_jinja_template(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, bos_token=bos,
            eos_token=eos)
    except Exception as e:
        out["error"] = str(e)
        out["error_type"] = type(e).__name__          # TemplateError: raise_exception's own; the others are the engine's
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    own = GGUFReader(parser.parse_args().model).fields["tokenizer.chat_template"].contents()
    cases = [case(f"{name}/{i}", template, messages, prompt, bos, eos)
             for name, template, bos, eos in [("smollm2", own, "<|im_start|>", "<|im_end|>")] + FAMILIES
             for i, messages in enumerate(CONVERSATIONS) for prompt in (True, False)]
    cases += [case("no messages", CHATML, [], True, "", ""), case("no messages, first asked", own, [], False, "", ""),
              case("no messages, indexed", LLAMA2, [], False, "<s>", "</s>")]
    cases += [case("feature/" + name, template, CONVERSATIONS[2], True, "<s>", "</s>") for name,
              template in FEATURES.items()]
    with open(os.path.join(HERE, "golden_chat.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
    print(len(cases), "cases,", sum("error" in c for c in cases), "errors")
    return cases


if __name__ == "__main__":
    main()
