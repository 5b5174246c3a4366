//! Chat templates: the shapes that models' templates have, Python's ways, and hostile ones.

mod support;

use std::time::Instant;

use hyperion::chat::{ChatError, ChatTemplate, Message, Variables};
use hyperion::gguf::Gguf;
use hyperion::tokenizer::Tokenizer;
use serde_json::{Value, json};

fn talk(list: &[(&str, &str)]) -> Vec<Message> {
    list.iter()
        .map(|&(role, content)| Message::new(role, content))
        .collect()
}

fn messages(list: &[(&str, &str)]) -> Vec<Value> {
    talk(list).iter().map(Message::to_json).collect()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(Some(source), "<s>", "</s>").unwrap()
}

fn render(source: &str, list: &[(&str, &str)]) -> String {
    template(source)
        .render(&messages(list), true, &Variables::new())
        .unwrap()
}

/// The output of an expression over one message.
fn eval(expression: &str) -> String {
    render(
        &format!("{{{{ {expression} }}}}"),
        &[("user", "Hello, World")],
    )
}

#[test]
fn the_fallback_is_chatml() {
    let chatml = ChatTemplate::new(None, "", "").unwrap();
    assert!(!chatml.is_from_file());
    let list = messages(&[("system", "Be kind."), ("user", " hi\n")]);
    let text = chatml.render(&list, true, &Variables::new()).unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n hi\n<|im_end|>\n<|im_start|>assistant\n"
    );
    let text = chatml.render(&list[1..], false, &Variables::new()).unwrap();
    assert_eq!(text, "<|im_start|>user\n hi\n<|im_end|>\n");
}

/// The shape of Llama 3: the BOS token, a date, trimmed contents, a set-aside system message.
#[test]
fn llama3_shape() {
    let source = "\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now('%d %b %Y') %}
    {%- else %}
        {%- set date_string = '26 Jul 2024' %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Today: ' + date_string + '\\n' + system_message + '<|eot_id|>' }}
{%- if tools is not none %}{{ 'tools!' }}{% endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";
    let list = messages(&[("system", " S "), ("user", " U ")]);
    let fixed = Variables::from_iter([("date_string".to_owned(), json!("1 Jan 2000"))]);
    assert_eq!(
        template(source).render(&list, true, &fixed).unwrap(),
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 1 Jan 2000\nS<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    let today = render(source, &[("user", "U")]);
    assert!(
        today.contains("Today: ") && !today.contains("26 Jul 2024"),
        "{today}"
    );
}

/// The shape of Gemma: roles must alternate, the system message goes into the first turn.
#[test]
fn gemma_shape() {
    let source = "\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = '' -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = 'model' -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else '') }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {{ 'parts' }}
    {%- else -%}
        {{ raise_exception('Invalid content type') }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
";
    assert_eq!(
        render(
            source,
            &[
                ("system", "S"),
                ("user", "a"),
                ("assistant", "b "),
                ("user", "c")
            ]
        ),
        "<s><start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n\
         <start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    );
    let twice = messages(&[("user", "a"), ("user", "b")]);
    match template(source).render(&twice, true, &Variables::new()) {
        Err(ChatError::Refused(reason)) => assert!(reason.starts_with("Conversation roles must")),
        other => panic!("{other:?}"),
    }
}

/// The shape of Qwen 3: a namespace set in a loop over the reversed list, thoughts cut out of
/// earlier answers, tools as JSON, and a switch for thinking.
#[test]
fn qwen3_shape() {
    let source = "\
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools' }}
    {%- for tool in tools %}
        {{- \"\\n\" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == 'user' and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- if '</think>' in content and loop.index0 < ns.last_query_index %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
";
    let list = [
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\nb"),
        ("user", "c"),
    ];
    assert_eq!(
        render(source, &list),
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
         <|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    );
    let variables = json!({
        "enable_thinking": false,
        "tools": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
    });
    let text = template(source)
        .render(
            &messages(&[("user", "x")]),
            true,
            variables.as_object().unwrap(),
        )
        .unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\n# Tools\n{\"type\": \"function\", \"function\": {\"name\": \"f\", \
         \"arguments\": {}}}<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n\
         <think>\n\n</think>\n\n"
    );
}

#[test]
fn macros_namespaces_and_loop_controls() {
    let source = "\
{% macro turn(role, content='') -%}
[{{ role | upper }}] {{ content }}{{ eos_token }}
{%- endmacro %}
{% set ns = namespace(count=0) %}
{% for message in messages %}
    {% if message.role == 'system' %}
        {% continue %}
    {% endif %}
    {% set ns.count = ns.count + 1 %}
    {% if ns.count > 2 %}
        {% break %}
    {% endif %}
{{ turn(message.role, content=message.content) }}
{% endfor %}
{{ ns.count }}";
    let list = [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ];
    assert_eq!(render(source, &list), "[USER] a</s>\n[ASSISTANT] b</s>\n3");
}

#[test]
fn blocks_leave_no_lines_behind() {
    // trim_blocks, lstrip_blocks, and one final line end less.
    assert_eq!(
        render("a\n  {% if true %}\nb\n  {% endif %}\nc\n", &[]),
        "a\nb\nc"
    );
}

#[test]
fn python_methods() {
    assert_eq!(eval("messages[0].content.lower().split(', ')[1]"), "world");
    assert_eq!(eval("messages[0].get('name', 'none')"), "none");
    assert_eq!(
        eval("'  x '.strip() ~ 'ab'.replace('a', 'c') ~ 'x'.title()"),
        "xcbX"
    );
    assert_eq!(eval("messages[0].items() | list | length"), "2");
    assert_eq!(eval("'Hello' in messages[0].content"), "True");
    assert_eq!(eval("messages[0].content[-5:]"), "World");
    assert_eq!(eval("'%s-%d' | format('a', 3)"), "a-3");
    assert_eq!(eval("undefined_name"), "");
    assert_eq!(eval("messages | map(attribute='role') | join(',')"), "user");
    assert_eq!(
        eval("messages | selectattr('role', 'equalto', 'user') | list | length"),
        "1"
    );
}

#[test]
fn json_is_pythons() {
    assert_eq!(
        eval("{'b': [1, 2.0, 1e16, 0.00001, true, none], 'a': 'é\"\\n'} | tojson"),
        "{\"b\": [1, 2.0, 1e+16, 1e-05, true, null], \"a\": \"é\\\"\\n\"}"
    );
    assert_eq!(
        eval("{'a': [1], 'b': {}} | tojson(indent=2)"),
        "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}"
    );
    assert_eq!(
        eval("[1, {'a': 2}] | tojson(separators=(',', ':'))"),
        "[1,{\"a\":2}]"
    );
    assert_eq!(
        eval("'é🦙' | tojson(ensure_ascii=true)"),
        "\"\\u00e9\\ud83e\\udd99\""
    );
    assert_eq!(
        eval("{'b': 1, 'a': 2} | tojson(sort_keys=true)"),
        "{\"a\": 2, \"b\": 1}"
    );
    // Not for HTML: nothing is escaped that JSON allows.
    assert_eq!(eval("'<a href=\\'x\\'>&' | tojson"), "\"<a href='x'>&\"");
    let error = template("{{ nothing | tojson }}").render(&[], false, &Variables::new());
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("not JSON serializable")
    );
}

#[test]
fn broken_templates_are_errors_with_a_line() {
    let error = ChatTemplate::new(Some("a\n{% if %}"), "", "")
        .unwrap_err()
        .to_string();
    assert!(error.contains("(line 2)"), "{error}");
    let failing = template("a\n{{ messages[0].content.nonsense() }}");
    let error = failing.render(&messages(&[("user", "x")]), true, &Variables::new());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("nonsense") && error.contains("(line 2)"),
        "{error}"
    );
    assert!(ChatTemplate::new(Some(&"x".repeat(2 << 20)), "", "").is_err());
}

#[test]
fn hostile_templates_run_out_of_fuel() {
    let hostile = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}",
        "{{ [1] | tojson(indent=100000000000) }}",
        "{{ 'x'.center(10000000000) }}{{ 'x' | indent(100000000000, true) }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ '%100000000000d' | format(1) }}",
        "{{ '{:100000000000}'.format('x') }}{{ 'x'.zfill(10000000000) }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == ns.l }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ];
    for source in hostile {
        let start = Instant::now();
        let outcome = template(source).render(&[], true, &Variables::new());
        assert!(
            outcome.is_err(),
            "{source} gave {} bytes",
            outcome.unwrap().len()
        );
        assert!(
            start.elapsed().as_secs() < 5,
            "{source} took {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_long_conversation_is_not_hostile() {
    let long = "word ".repeat(100_000);
    let list = messages(&[("user", long.as_str()); 10]);
    let source = "{% for m in messages %}{{ m.content | trim }}{{ m.content.split('x')[-1].strip() }}{% endfor %}";
    let text = template(source)
        .render(&list, true, &Variables::new())
        .unwrap();
    assert_eq!(text.len(), 20 * (long.len() - 1));
}

/// A session renders the whole conversation each turn; what it computed before must stay valid.
#[test]
fn a_next_turn_extends_the_tokens_of_the_last() {
    let gguf = Gguf::open(&support::model("smollm2")).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer).unwrap();
    let mut list = talk(&[("user", "Hi!")]);
    let first = template
        .encode(&tokenizer, &list, true, &Variables::new())
        .unwrap();
    list.extend(talk(&[("assistant", "Hello."), ("user", "Bye.")]));
    let second = template
        .encode(&tokenizer, &list, true, &Variables::new())
        .unwrap();
    assert_eq!(second[..first.len()], first[..]);
}

/// Each expression with what Python's jinja2 3.1.6 prints for it, `!` for an exception.
#[test]
fn expressions_are_pythons() {
    let cases = include_str!("fixtures/jinja.txt");
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in cases
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (source, wanted) = line.split_once(" => ").expect("a case");
        let source = source.replace("\\n", "\n").replace("\\r", "\r");
        let outcome = ChatTemplate::new(Some(&source), "<s>", "</s>").and_then(|t| {
            t.render(
                &messages(&[("user", "Hello, World")]),
                true,
                &Variables::new(),
            )
        });
        let found = match &outcome {
            Ok(text) => format!("{text:?}"),
            Err(_) => "!".to_owned(),
        };
        if found != wanted {
            wrong.push(format!("{source}: {outcome:?}, not {wanted}"));
        }
        count += 1;
    }
    assert!(
        wrong.is_empty(),
        "{}",
        wrong.join(
            "
"
        )
    );
    assert!(count > 100, "{count}");
}

#[test]
fn templates_that_want_parts_get_parts() {
    let parts = "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}";
    let prompt = |source: &str| {
        template(source).prompt(
            &messages(&[("system", "S"), ("user", " Hi all ")]),
            true,
            &Variables::new(),
        )
    };
    assert_eq!(prompt(parts).unwrap().text, "[system]S[user] Hi all ");
    let failing = "{% for m in messages %}{{ m.content[0].text.strip() }}{% endfor %}";
    assert_eq!(prompt(failing).unwrap().text, "SHi all");
    let strings = "{% for m in messages %}{{ m.content | trim }};{% endfor %}";
    assert_eq!(prompt(strings).unwrap().text, "S;Hi all;");
    let none = prompt("{{ messages[0].content }}");
    assert!(matches!(none, Err(ChatError::MessageLost)), "{none:?}");
    let some = prompt("{{ messages[1].content.split()[0] }}").unwrap();
    assert_eq!(some.text, "Hi", "what a template cuts is its business");
}
