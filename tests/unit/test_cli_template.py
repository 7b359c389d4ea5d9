"""Go templates; results recorded from `docker inspect -f` and `docker ps --format` where Docker has the data too."""

from __future__ import annotations

import pytest

from minicontainer.cli.template import Template, TemplateError

DATA = {
    "Id": "c4f11ad688a9",
    "Name": "/cc",
    "State": {"Status": "exited", "Pid": 0, "Running": False, "Health": None},
    "Config": {"Cmd": ["echo", "hello world"], "Labels": {"z": "", "k": "v<1>"}, "Env": []},
    "Mounts": [{"Source": "/a", "Destination": "/b"}, {"Source": "/c", "Destination": "/d"}],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}", "/cc"),
        ("{{ .Name }}-{{.State.Status}}", "/cc-exited"),
        ("{{.State.Pid}} {{.State.Running}}", "0 false"),
        ("{{.State.Health}}", "<no value>"),
        ("{{.Config.Cmd}} {{.Config.Env}} {{.Config.Labels}}", "[echo hello world] [] map[k:v<1> z:]"),
        ("{{json .Config.Cmd}}", '["echo","hello world"]'),
        ("{{json .Config.Labels}}", '{"z":"","k":"v\\u003c1\\u003e"}'),
        ("{{.Config.Cmd | json}}", '["echo","hello world"]'),
        ('{{index .Config.Cmd 0}} {{index .Config.Labels "k"}} {{len .Config.Cmd}}', "echo v<1> 2"),
        ('{{index .Config.Labels "absent"}}', ""),
        ("{{(index .Mounts 1).Source}}", "/c"),
        ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<echo><hello world>"),
        ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{$.Name}};{{end}}", "/a:/b /cc;/c:/d /cc;"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}},{{end}}", "k=v<1>,z=,"),
        ("{{range $i, $m := .Mounts}}{{if $i}} {{end}}{{$m.Source}}{{end}}", "/a /c"),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
        ('{{if .State.Running}}a{{else if eq .State.Status "exited"}}b{{else}}c{{end}}', "b"),
        ("{{with .State}}{{.Status}}{{end}}", "exited"),
        ("{{with .State.Health}}yes{{else}}no health{{end}}", "no health"),
        ('{{join .Config.Cmd ","}}', "echo,hello world"),
        ("{{upper .Name}} {{.Name | lower}} {{title .State.Status}}", "/CC /cc Exited"),
        ("{{$x := .State.Status}}{{$x}}{{$x}}", "exitedexited"),
        ("a {{- .Name -}} b", "a/ccb"),
        ("{{/* nothing */}}x", "x"),
        ('{{println "a" "b"}}', "a b\n"),
        ('{{printf "%s-%d" .State.Status 3}}', "exited-3"),
        ("{{if and .Name (not .State.Running)}}ok{{end}}", "ok"),
        ('{{`raw \\n`}} {{"esc\\t"}}', "raw \\n esc\t"),
        ("{{slice .Id 0 4}}", "c4f1"),
        ("{{.}}", None),
    ],
)
def test_what_a_template_gives(template, text):
    result = Template(template)(DATA)
    if text is None:
        assert result.startswith("map[Config:map[Cmd:")
    else:
        assert result == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.State.Pid", "unclosed action"),
        ("{{nofunc .State}}", 'function "nofunc" not defined'),
        ("{{}}", "missing value for command"),
        ("{{.Name | }}", "missing value for command"),
        ("{{if .Name}}x", "unclosed {{if}}"),
        ("x{{end}}", "unexpected {{end}}"),
        ("{{(len .Name}}", "unclosed left paren"),
        ("{{.Name ^}}", "unexpected ' ^' in command"),
        ("{{if}}x{{end}}", "missing value for command"),
        ("{{else}}", "unexpected {{else}}"),
        ('{{"\\q"}}', "bad string"),
    ],
)
def test_a_bad_template_is_refused_before_anything_is_printed(template, message):
    with pytest.raises(
        TemplateError, match=message.replace("{", r"\{").replace("^", r"\^").replace("(", r"\(")
    ) as caught:
        Template(template)
    assert caught.value.parsing


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.State.Nope.Foo}}", 'map has no entry for key "Nope"'),
        ("{{.Name.Foo}}", 'no field "Foo" in type str'),
        ("{{.State.Health.Status}}", "nil data"),
        ("{{index .Config.Cmd 9}}", "error calling index"),
        ("{{len .State.Pid}}", "error calling len"),
        ("{{range .State.Pid}}{{end}}", "range can't iterate over 0"),
        ("{{.Name 3}}", "can't give argument to non-function"),
        ("{{$nope}}", "undefined variable"),
    ],
)
def test_a_template_that_does_not_fit_says_where(template, message):
    with pytest.raises(TemplateError, match=message):
        Template(template)(DATA)


def test_json_cannot_carry_control_characters_to_a_terminal():
    assert Template("{{json .}}")({"a": "\x1b[2J\u202e"}) == '{"a":"\\u001b[2J\\u202e"}'


def test_else_if_chain_ends_once():
    template = Template("{{if .a}}1{{else if .b}}2{{else if .c}}3{{end}}-{{.a}}")
    assert template({"a": 0, "b": 0, "c": 1}) == "3-0"
    assert template({"a": 0, "b": 1, "c": 1}) == "2-0"
